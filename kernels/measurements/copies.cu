// Measures what the section copies of calibration-h100.yaml holds: thread blocks that ask for a tile, wait for it and meet at a
// barrier, trip after trip. Kinds: loads into registers (load), passed on to the shared memory (pass), asynchronous copies
// (copy), which compiled loops guard by a predicate (fill). Cycle counters of each warp: asking, waiting, meeting, the rest.
// places: arrays that a tile comes from; fence: of the proxy, as before a warp group's product, 2 with a barrier; stored_bytes: what
// a trip stores; pause: dependent multiply-adds. Built by nvcc -O3 -std=c++17 -arch=sm_90a; "special": the cases with all that only.
#include <cstdio>
#include <cstdint>
#include <vector>
#include <algorithm>
#include <cuda_runtime.h>
#define CK(x) do{cudaError_t e=(x); if(e){fprintf(stderr,"err %s line %d\n",cudaGetErrorString(e),__LINE__); exit(1);}}while(0)
enum {LOAD, COPY, PASS, FILL};
struct Sum { unsigned ask, wait, meet, rest; };
__device__ __forceinline__ unsigned now(){unsigned r; asm volatile("mov.u32 %0,%%clock;":"=r"(r)::"memory"); return r;}
template<int MODE,int N> __global__ void __launch_bounds__(256) trips_of(const char*src,size_t size,size_t own,int trips,int parts,
    int fence,int stores,char*out,int pause,int odd,Sum*sums,int*sink){
  extern __shared__ char sm[];
  uint32_t base=(uint32_t)__cvta_generic_to_shared(sm)+threadIdx.x*16;
  const int step=blockDim.x*16, tile=step*N;
  const size_t part=own/parts;               // a tile's copies come from so many places of the block's own region
  const char*p=src+(size_t)blockIdx.x*own+threadIdx.x*16;
  char*q=out+((size_t)blockIdx.x*trips*stores*blockDim.x+threadIdx.x)*16;
  unsigned a=0,w=0,m=0,r=0; float idle=threadIdx.x*1e-9f; int acc=0; size_t at=0;
  unsigned t0=now();
  for(int t=0;t<trips;t++){
    int4 v[N];
    #pragma unroll
    for(int i=0;i<N;i++){
      const char*g=p+at+(size_t)(i*parts/N)*part+(size_t)(i-(i*parts/N)*N/parts)*step;
      if(MODE==FILL) asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;"::"r"(base+i*step),"l"(g),"r"((i&1)&&odd?0:16):"memory");
      else if(MODE==COPY) asm volatile("cp.async.cg.shared.global [%0],[%1],16;"::"r"(base+i*step),"l"(g):"memory");
      else asm volatile("ld.global.cg.v4.s32 {%0,%1,%2,%3},[%4];":"=r"(v[i].x),"=r"(v[i].y),"=r"(v[i].z),"=r"(v[i].w):"l"(g));
    }
    if(MODE==COPY||MODE==FILL) asm volatile("cp.async.commit_group;":::"memory");
    unsigned t1=now();
    if(MODE==COPY||MODE==FILL) asm volatile("cp.async.wait_group 0;":::"memory");
    else {
      #pragma unroll
      for(int i=0;i<N;i++) {
        if(MODE==PASS) asm volatile("st.shared.v4.s32 [%0],{%1,%2,%3,%4};"::"r"(base+i*step),"r"(v[i].x),"r"(v[i].y),"r"(v[i].z),"r"(v[i].w):"memory");
        else acc|=v[i].x;
      }
      if(MODE==LOAD && acc==77) sink[0]=1;
    }
    unsigned t2=now();
    __syncthreads();
    if(fence) asm volatile("fence.proxy.async.shared::cta;":::"memory");
    if(fence>1) __syncthreads();
    unsigned t3=now();
    for(int c=0;c<pause;c++) idle=fmaf(idle,0.5f,0.25f);
    for(int s=0;s<stores;s++){ *(int4*)q=make_int4(t,s,0,0); q+=step; }
    if(idle>2.f) sink[0]=2;
    at+=tile/parts; if((at+tile/parts)*parts>own) at=0;
    if(pause) __syncthreads();
    unsigned t4=now();
    a+=t1-t0; w+=t2-t1; m+=t3-t2; r+=t4-t3; t0=t4;
  }
  if(MODE!=LOAD && sm[threadIdx.x]==77 && sm[threadIdx.x+1]==99) sink[0]=1;
  if(threadIdx.x%32==0) sums[blockIdx.x*(blockDim.x/32)+threadIdx.x/32]={a,w,m,r};
}
char*SRC,*OUT,*FLUSH; Sum*SUMS; int*SINK; size_t SIZE=(size_t)12<<30, POS=0;
__global__ void flush_all(const int4*p,size_t n,int*sink){ int acc=0; for(size_t i=blockIdx.x*(size_t)blockDim.x+threadIdx.x;i<n;i+=(size_t)gridDim.x*blockDim.x) acc|=p[i].x; if(acc==77) sink[0]=1; }
template<int MODE,int N> void one(const char*kind,bool dram,int blocks,int threads,int parts,int fence,int stores,int pause){
  size_t tile=(size_t)threads*16*N; int trips; size_t own; const char*src;
  if(dram){ trips=(int)std::min<size_t>(blocks==1?1024:256,((size_t)1<<30)/(tile*blocks)); trips=std::max(trips,24); own=tile*trips; own=(own+parts*16-1)/(parts*16)*(parts*16);
    if(POS+own*blocks>SIZE) POS=0; src=SRC+POS; POS+=(own*blocks+4095)/4096*4096; }
  else { own=std::max<size_t>(tile, (blocks==1?(size_t)1<<20:((size_t)16<<20)/blocks)/tile*tile); trips=std::max<int>(256,4*own/tile); src=SRC; }
  CK(cudaFuncSetAttribute(trips_of<MODE,N>,cudaFuncAttributeMaxDynamicSharedMemorySize,(int)tile));
  std::vector<double> best; double f[6]={0}; std::vector<Sum> h(blocks*threads/32);
  cudaEvent_t e0,e1; cudaEventCreate(&e0); cudaEventCreate(&e1); float ms=0;
  for(int rep=0;rep<(dram?1:2);rep++){
    if(dram) flush_all<<<528,512>>>((const int4*)FLUSH,((size_t)200<<20)/16,SINK);
    cudaEventRecord(e0);
    trips_of<MODE,N><<<blocks,threads,tile>>>(src,SIZE,own,trips,parts,fence,stores,OUT,pause,0,SUMS,SINK);
    cudaEventRecord(e1); CK(cudaEventSynchronize(e1)); cudaEventElapsedTime(&ms,e0,e1);
  }
  CK(cudaMemcpy(h.data(),SUMS,h.size()*sizeof(Sum),cudaMemcpyDeviceToHost));
  for(auto&s:h){ f[0]+=s.ask; f[1]+=s.wait; f[2]+=s.meet; f[3]+=s.rest; }
  for(int i=0;i<4;i++) f[i]/=(double)h.size()*trips;
  printf("  - {kind: %s, resident: %d, blocks: %d, warps: %d, block_bytes: %zu, places: %d, fence: %d, stored_bytes: %d, pause: %d, trips: %d, ms: %.5f, trip_cycles: %.1f, ask_cycles: %.1f, wait_cycles: %.1f, meet_cycles: %.1f, rest_cycles: %.1f}\n",
    kind,!dram,blocks,threads/32,tile,parts,fence,stores*threads*16,pause,trips,ms,f[0]+f[1]+f[2]+f[3],f[0],f[1],f[2],f[3]);
  fflush(stdout); cudaEventDestroy(e0); cudaEventDestroy(e1);
}
template<int N> void sizes(const char*kind,int mode,bool dram,int blocks,int threads,int parts=1,int fence=0,int stores=0,int pause=0){
  if(mode==LOAD) one<LOAD,N>(kind,dram,blocks,threads,parts,fence,stores,pause);
  if(mode==COPY) one<COPY,N>(kind,dram,blocks,threads,parts,fence,stores,pause);
  if(mode==FILL) one<FILL,N>(kind,dram,blocks,threads,parts,fence,stores,pause);
  if(mode==PASS) one<PASS,N>(kind,dram,blocks,threads,parts,fence,stores,pause);
}
int main(int argc,char**){
  CK(cudaMalloc(&SRC,SIZE)); CK(cudaMemset(SRC,0,SIZE)); CK(cudaMalloc(&OUT,(size_t)3<<30)); CK(cudaMalloc(&FLUSH,(size_t)200<<20)); CK(cudaMemset(FLUSH,0,(size_t)200<<20));
  CK(cudaMalloc(&SUMS,1<<20)); CK(cudaMalloc(&SINK,64)); CK(cudaMemset(SINK,0,64));
  for(int i=0;i<100;i++) flush_all<<<528,512>>>((const int4*)FLUSH,((size_t)200<<20)/16,SINK); CK(cudaDeviceSynchronize());
  const char*names[]={"load","copy","pass","fill"};
  printf("  copies:\n");
  if(argc<2) for(int blocks:{1,32,132,264}) for(int dram=0;dram<2;dram++) for(int mode=0;mode<4;mode++){
    const char*k=names[mode];
    sizes<1>(k,mode,dram,blocks,128); sizes<2>(k,mode,dram,blocks,128); sizes<4>(k,mode,dram,blocks,128); sizes<8>(k,mode,dram,blocks,128);
    sizes<12>(k,mode,dram,blocks,128); sizes<16>(k,mode,dram,blocks,128); sizes<20>(k,mode,dram,blocks,128); sizes<24>(k,mode,dram,blocks,128); sizes<32>(k,mode,dram,blocks,128);
    sizes<1>(k,mode,dram,blocks,256); sizes<4>(k,mode,dram,blocks,256); sizes<8>(k,mode,dram,blocks,256); sizes<16>(k,mode,dram,blocks,256);
  }
  for(int blocks:{1,32,132}) for(int dram=0;dram<2;dram++) for(int mode:{(int)LOAD,(int)FILL}) { // three arrays, fences, stores
    const char*k=names[mode];
    sizes<12>(k,mode,dram,blocks,128,3); sizes<24>(k,mode,dram,blocks,128,3);
    sizes<12>(k,mode,dram,blocks,128,3,1); sizes<12>(k,mode,dram,blocks,128,3,2);
    sizes<12>(k,mode,dram,blocks,128,3,2,4); sizes<12>(k,mode,dram,blocks,128,3,0,4);
    sizes<12>(k,mode,dram,blocks,128,3,2,4,300);
    sizes<12>(k,mode,dram,blocks,128,3,2,0,300); sizes<12>(k,mode,dram,blocks,128,3,0,4,300);
    sizes<24>(k,mode,dram,blocks,128,3,2,8,300); sizes<24>(k,mode,dram,blocks,128,3,2,0,300);
    sizes<8>(k,mode,dram,blocks,128,1,0,0,300); sizes<8>(k,mode,dram,blocks,128,1,0,0,1000); sizes<12>(k,mode,dram,blocks,128,1,0,0,300); sizes<12>(k,mode,dram,blocks,128,3,0,0,300); sizes<12>(k,mode,dram,blocks,128,1,0,4,300); sizes<12>(k,mode,dram,blocks,128,3,0,1,300); sizes<12>(k,mode,dram,blocks,128,3,0,0,1000); sizes<12>(k,mode,dram,blocks,128,3,0,4,1000); sizes<20>(k,mode,dram,blocks,128,2,0,0,300); sizes<20>(k,mode,dram,blocks,128,2,0,4,300);
  }
  CK(cudaDeviceSynchronize());
}
