// Measures what the section gaps of calibration-h100.yaml holds: what stands between two kernels of a stream, by events and by
// stamps of each block (global timer, cycles of its multiprocessor), and what cold code takes. `cold`: the L2 was filled with
// other lines before, by a kernel that takes longer than the host takes to launch what follows. Built by nvcc -O3 -std=c++17 -arch=sm_90a.
#include <cstdio>
#include <cstdint>
#include <vector>
#include <algorithm>
#include <cuda_runtime.h>
#define CK(x) do{cudaError_t e=(x); if(e){fprintf(stderr,"err %s line %d\n",cudaGetErrorString(e),__LINE__); exit(1);}}while(0)
struct Many { const void*p[8]; int n[8]; };
__device__ __forceinline__ long long gt(){long long r; asm volatile("mov.u64 %0,%%globaltimer;":"=l"(r)::"memory"); return r;}
__device__ __forceinline__ unsigned smid(){unsigned r; asm volatile("mov.u32 %0,%%smid;":"=r"(r)); return r;}
struct Stamp { long long g0,g1,c0,c1; unsigned sm; unsigned pad; };
__global__ void nothing(int*s){ if(s==nullptr) asm volatile("trap;"); }
__global__ void nothing_else(Many m,int*s){ if(s==nullptr||m.n[3]==99) asm volatile("trap;"); }
__global__ void stamped(Stamp*st,const int4*p,int loops,int4*q,int n,size_t stride,int*sink){ // loops dependent reads of what stands at p, then n stores of a thread
  long long g0=gt(),c0=clock64(); int acc=0; size_t at=(size_t)blockIdx.x*blockDim.x+threadIdx.x;
  for(int i=0;i<loops;i++){ int4 v; asm volatile("ld.global.cg.v4.s32 {%0,%1,%2,%3},[%4];":"=r"(v.x),"=r"(v.y),"=r"(v.z),"=r"(v.w):"l"(p+at)); acc|=v.x; at+=stride+(v.x==77); }
  if(acc==78) sink[0]=1;
  for(int i=0;i<n;i++) q[(size_t)blockIdx.x*n*blockDim.x+i*blockDim.x+threadIdx.x]=make_int4(i,0,0,0);
  __syncthreads();
  if(threadIdx.x==0){ st[blockIdx.x]={g0,gt(),c0,clock64(),smid(),0}; }
}
template<int K> __global__ void code(float a,float b,float*out){ float x=threadIdx.x,y=a;
  #pragma unroll
  for(int i=0;i<K/2;i++){ x=fmaf(x,a,b); y=fmaf(y,b,a); }
  if(x==1.f&&y==2.f) out[0]=x; }
template<int K> __global__ void code2(float a,float b,float*out){ float x=threadIdx.x,y=a;
  for(int t=0;t<2;t++){
  #pragma unroll
  for(int i=0;i<K/2;i++){ x=fmaf(x,a,b); y=fmaf(y,b,a); } a+=b; }
  if(x==1.f&&y==2.f) out[0]=x; }
__global__ void flush_all(const int4*p,size_t n,int*sink){ int acc=0; for(size_t i=blockIdx.x*(size_t)blockDim.x+threadIdx.x;i<n;i+=(size_t)gridDim.x*blockDim.x) acc|=p[i].x; if(acc==77) sink[0]=1; }
int4*FLUSH,*BUF,*SRC; int*SINK; Stamp*ST; float*FO; cudaEvent_t E0,E1;
template<class P,class F> double med(P prepare,F f,bool flush=true,int reps=60){
  std::vector<float> v; f();
  std::vector<cudaEvent_t> a(reps),b(reps); for(int i=0;i<reps;i++){cudaEventCreate(&a[i]);cudaEventCreate(&b[i]);}
  for(int i=0;i<reps;i++){ if(flush) flush_all<<<528,512>>>(FLUSH,((size_t)400<<20)/16,SINK); prepare(); cudaEventRecord(a[i]); f(); cudaEventRecord(b[i]); }
  CK(cudaDeviceSynchronize());
  for(int i=0;i<reps;i++){ float t; cudaEventElapsedTime(&t,a[i],b[i]); v.push_back(t*1e3); cudaEventDestroy(a[i]);cudaEventDestroy(b[i]); }
  std::sort(v.begin(),v.end()); return v[reps/2]; }
void none(){}
template<int K> void codes(){
  for(int blocks:{1,132}) for(int flush=0;flush<2;flush++){
    double t=med(none,[&]{code<K><<<blocks,128>>>(.5f,.25f,FO);},flush);
    double t2=med(none,[&]{code2<K><<<blocks,128>>>(.5f,.25f,FO);},flush);
    // another kernel between, so that the first caches hold other code
    double o=med([&]{code2<16384><<<132,128>>>(.5f,.25f,FO);},[&]{code<K><<<blocks,128>>>(.5f,.25f,FO);},flush);
    printf("  - {kind: code, instructions: %d, blocks: %d, cold: %d, once_us: %.3f, twice_us: %.3f, after_other_us: %.3f}\n",K,blocks,flush,t,t2,o); fflush(stdout);
  }
}
int main(){
  CK(cudaMalloc(&FLUSH,(size_t)400<<20)); CK(cudaMemset(FLUSH,0,(size_t)400<<20)); CK(cudaMalloc(&BUF,(size_t)256<<20)); CK(cudaMemset(BUF,0,(size_t)256<<20));
  CK(cudaMalloc(&SRC,(size_t)256<<20)); CK(cudaMemset(SRC,0,(size_t)256<<20)); CK(cudaMalloc(&SINK,64)); CK(cudaMalloc(&ST,sizeof(Stamp)*8192)); CK(cudaMalloc(&FO,64)); Stamp*ST2=ST+4096;
  for(int i=0;i<200;i++) flush_all<<<528,512>>>(FLUSH,((size_t)400<<20)/16,SINK); CK(cudaDeviceSynchronize());
  printf("  gaps:\n");
  Many m{}; 
  for(int flush=0;flush<2;flush++) for(int blocks:{1,32,132,528}){
    double a=med(none,[&]{nothing<<<blocks,128>>>(SINK);},flush);
    double b=med(none,[&]{nothing<<<blocks,128>>>(SINK);nothing<<<blocks,128>>>(SINK);},flush);
    double c=med(none,[&]{nothing<<<blocks,128>>>(SINK);nothing_else<<<blocks,128>>>(m,SINK);},flush);
    double d=med(none,[&]{for(int i=0;i<6;i++) nothing<<<blocks,128>>>(SINK);},flush);
    printf("  - {kind: empty, cold: %d, blocks: %d, one_us: %.3f, two_us: %.3f, two_kinds_us: %.3f, six_us: %.3f}\n",flush,blocks,a,b,c,d); fflush(stdout);
  }
  // first: blocks that read a while and write; second: blocks that read what was written
  for(int blocks:{128,528}) for(int n:{0,1,4,32}) for(int second:{0,1,32,132,512}) for(int loops:{0,1,8}) {
    if(second==0&&loops) continue; if(n==0&&loops>1) continue;
    auto first=[&]{ stamped<<<blocks,128>>>(ST,SRC,40,BUF,n,(size_t)blocks*128,SINK); };
    auto then=[&]{ if(second) stamped<<<second,128>>>(ST2,BUF,loops,(int4*)FLUSH,1,(size_t)second*128,SINK); };
    double f=med(none,first,true,30), t=second?med(none,[&]{first();then();},true,30):f, alone=second?med(first,then,true,30):0, cold=second?med(none,then,true,30):0;
    std::vector<Stamp> h(8192); double gap=0,ramp=0,own=0,begin=0; int reps=9; std::vector<double> gs,rs,os,cs;
    for(int r=0;r<reps&&second;r++){ flush_all<<<528,512>>>(FLUSH,((size_t)400<<20)/16,SINK); first(); then(); CK(cudaDeviceSynchronize()); CK(cudaMemcpy(h.data(),ST,sizeof(Stamp)*8192,cudaMemcpyDeviceToHost));
      long long e=0,b=1LL<<62,l=0,l1=0; double sm=1e18; for(int i=0;i<blocks;i++) e=std::max(e,h[i].g1); for(int i=0;i<second;i++){ auto&s=h[4096+i]; b=std::min(b,s.g0); l=std::max(l,s.g0); l1=std::max(l1,s.g1); for(int j=0;j<blocks;j++) if(h[j].sm==s.sm) sm=std::min(sm,(double)(s.c0-h[j].c1)); }
      gs.push_back(b-e); rs.push_back(l-b); os.push_back(l1-b); cs.push_back(sm); }
    auto md=[&](std::vector<double>&v){ if(v.empty()) return 0.0; std::sort(v.begin(),v.end()); return v[v.size()/2]; };
    gap=md(gs); ramp=md(rs); own=md(os); begin=md(cs);
    printf("  - {kind: behind, blocks: %d, written_bytes: %zu, second_blocks: %d, reads: %d, first_us: %.3f, both_us: %.3f, second_alone_us: %.3f, second_cold_us: %.3f, gap_ns: %.0f, same_sm_gap_cycles: %.0f, start_spread_ns: %.0f, second_ns: %.0f}\n",
      blocks,(size_t)blocks*128*16*n,second,loops,f,t,alone,cold,gap,begin,ramp,own); fflush(stdout);
  }
  codes<16>(); codes<256>(); codes<1024>(); codes<2048>(); codes<4096>(); codes<8192>();
  CK(cudaDeviceSynchronize());
}
