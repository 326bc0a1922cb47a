// Measures what section distances of calibration-h100.yaml holds: what the L2 still has of data that multiprocessors read
// again and again. Built by nvcc -O3 -std=c++17 -arch=sm_90a; DRAM bytes are a counter of Nsight Compute
// (dram__bytes_read.sum) over the launches of `cycle`, with --cache-control none --clock-control none. A line of output
// for each launch of `cycle`, in order.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>
#include <cuda_runtime.h>
#define CHECK(call) do { cudaError_t e = (call); if (e) printf("error %s, line %d\n", cudaGetErrorString(e), __LINE__); } while (0)

__device__ __forceinline__ unsigned multiprocessor() { unsigned r; asm volatile("mov.u32 %0,%%smid;" : "=r"(r)); return r; }
__device__ __forceinline__ int4 load(const char *p) {
  int4 v;
  asm volatile("ld.global.cg.v4.s32 {%0,%1,%2,%3},[%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}
__global__ void flush(const char *p, size_t bytes, int *sink) {
  int sum = 0;
  for (size_t i = (blockIdx.x * (size_t)blockDim.x + threadIdx.x) * 16; i < bytes; i += (size_t)gridDim.x * blockDim.x * 16) sum += load(p + i).x;
  if (sum == 12345) sink[0] = sum;
}
// Each multiprocessor reads the pieces of its group in turn, `rounds` times; where[g * pieces + i] is the place of piece i of group g.
__global__ void cycle(const char *p, const int *group, const int *where, int pieces, size_t piece, int rounds, int *sink) {
  extern __shared__ char whole[];  // all of a multiprocessor's: one block on each
  int g = group[multiprocessor()], sum = 0;
  if (g < 0) return;
  size_t step = (size_t)blockDim.x * 16;
  for (int r = 0; r < rounds; r++) for (int i = 0; i < pieces; i++) {
    const char *from = p + (size_t)where[g * pieces + i] * piece;
    for (size_t o = 0; o < piece; o += step * 4) {
      int4 v[4];
      #pragma unroll
      for (int u = 0; u < 4; u++) { size_t at = o + u * step + threadIdx.x * 16; v[u] = at < piece ? load(from + at) : make_int4(0, 0, 0, 0); }
      #pragma unroll
      for (int u = 0; u < 4; u++) sum += v[u].x;
      __syncthreads();
    }
  }
  if (sum == 12345) sink[0] = sum;
}
int main() {
  const int rounds = 5, shared = 200 * 1024;
  char *data; int *sink, *group, *where;
  CHECK(cudaMalloc(&data, (size_t)2 << 30)); CHECK(cudaMemset(data, 0, (size_t)2 << 30));
  CHECK(cudaMalloc(&sink, 64)); CHECK(cudaMalloc(&group, 4096)); CHECK(cudaMalloc(&where, 1 << 20));
  cudaDeviceProp device; cudaGetDeviceProperties(&device, 0);
  const int count = device.multiProcessorCount;
  CHECK(cudaFuncSetAttribute(cycle, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  srand(1);
  // piece 0: each group's data lies together, and so do those of all groups; else pieces lie anywhere in 1 GB.
  auto run = [&](int sharing, size_t piece, double places, double copies) {
    int groups = count / sharing, pieces = 1; size_t size = piece;
    if (piece) pieces = std::max(1, (int)(places / copies / groups / piece + 0.5));
    else size = std::max((size_t)1, (size_t)(places / copies / groups) >> 16) << 16;
    std::vector<int> g(count, -1), at(piece ? (1 << 30) / piece : groups);
    for (int s = 0; s < groups * sharing; s++) g[s] = s / sharing;
    for (size_t i = 0; i < at.size(); i++) at[i] = i;
    if (piece) for (int i = 0; i < pieces * groups; i++) std::swap(at[i], at[i + rand() % (at.size() - i)]);
    CHECK(cudaMemcpy(group, g.data(), count * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(where, at.data(), pieces * groups * 4, cudaMemcpyHostToDevice));
    flush<<<count * 4, 512>>>(data + ((size_t)1 << 30), (size_t)400 << 20, sink);
    cycle<<<count, 512, shared>>>(data, group, where, pieces, size, rounds, sink);
    CHECK(cudaDeviceSynchronize());
    printf("{sharing: %d, piece_bytes: %zu, bytes: %zu, rounds: %d}\n", sharing, piece, size * pieces * groups, rounds);
  };
  for (double mb : {24., 30., 36., 42., 48., 54., 60., 66., 72., 78., 84.}) {
    run(1, 0, mb * 1e6, 1.5); run(1, 32768, mb * 1e6, 1.5);
    for (size_t piece : {(size_t)0, (size_t)32768, (size_t)1 << 20}) run(64, piece, mb * 1e6, 2);
    for (int draw = 0; draw < 4; draw++) for (size_t piece : {(size_t)2 << 20, (size_t)4 << 20}) run(count, piece, mb * 1e6, 2);
  }
}
