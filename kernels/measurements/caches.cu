// Measures what the sections sharing, pieces and again of calibration-h100.yaml hold: requests for the same lines, loads of a
// matrix product without the product, and rows that are read twice. Built by nvcc -O3 -std=c++17 -arch=sm_90a; DRAM and L2
// bytes are counters of Nsight Compute (dram__bytes_read.sum, lts__t_sectors_op_read.sum) over the same launches.
#include <cstdio>
#include <cstdint>
#include <vector>
#include <algorithm>
#include <cuda_runtime.h>
#define CK(x) do{cudaError_t e=(x); if(e){printf("err %s line %d\n",cudaGetErrorString(e),__LINE__); }}while(0)
__device__ __forceinline__ unsigned smid(){unsigned r; asm volatile("mov.u32 %0,%%smid;":"=r"(r)); return r;}
__device__ __forceinline__ void cpa(uint32_t s,const void*g){asm volatile("cp.async.cg.shared.global [%0],[%1],16;"::"r"(s),"l"(g));}
template<int N> __device__ __forceinline__ void waitg(){asm volatile("cp.async.wait_group %0;"::"n"(N));}
template<int ST,int NC> __global__ void loads(const char*a,const char*b,int m,int n,int kbytes,int bm,int bn,int kb,int group,int*sink){
  extern __shared__ char sm[];
  int tm=(m+bm-1)/bm,tn=(n+bn-1)/bn; int x=blockIdx.x; int g=x/(group*tn); int rows=min(tm-g*group,group);
  int im=g*group+x%(group*tn)%rows, in_=x%(group*tn)/rows;
  uint32_t base=(uint32_t)__cvta_generic_to_shared(sm)+threadIdx.x*16; int tile=(bm+bn)*kb; int chunks=kb/16; int trips=kbytes/kb;
  const char*p[NC];
  #pragma unroll
  for(int c=0;c<NC;c++){int i=threadIdx.x+c*blockDim.x; int r=i/chunks,q=i%chunks; p[c]=(r<bm? a+(size_t)(im*bm+r)*kbytes : b+(size_t)(in_*bn+r-bm)*kbytes)+q*16;}
  int step=blockDim.x*16; int slot=0;
  auto ask=[&](){ uint32_t s=base+slot*tile;
    #pragma unroll
    for(int c=0;c<NC;c++){cpa(s+c*step,p[c]); p[c]+=kb;} slot=slot==ST-1?0:slot+1; };
  for(int t=0;t<ST-1;t++){ if(t<trips) ask(); asm volatile("cp.async.commit_group;"); }
  for(int t=0;t<trips;t++){ waitg<ST-2>(); __syncthreads(); if(t+ST-1<trips) ask(); asm volatile("cp.async.commit_group;"); }
  waitg<0>(); if(sm[threadIdx.x]==77 && sm[threadIdx.x+1]==99 && sm[5]==3) sink[0]=1;
}
__global__ void again(const int4*a,int4*b,int row16,int write,int second,int*sink){ extern __shared__ char sm[];
  const int4*p=a+(size_t)blockIdx.x*row16; int acc=0;
  for(int i=threadIdx.x;i<row16;i+=blockDim.x*4){ int4 v[4];
    #pragma unroll
    for(int u=0;u<4;u++){int j=i+u*blockDim.x; if(j<row16) asm volatile("ld.global.cg.v4.s32 {%0,%1,%2,%3},[%4];":"=r"(v[u].x),"=r"(v[u].y),"=r"(v[u].z),"=r"(v[u].w):"l"(p+j)); else v[u]=make_int4(0,0,0,0);}
    #pragma unroll
    for(int u=0;u<4;u++) acc+=v[u].x; }
  __syncthreads();
  if(second) for(int i=threadIdx.x;i<row16;i+=blockDim.x*4){ int4 v[4];
    #pragma unroll
    for(int u=0;u<4;u++){int j=i+u*blockDim.x; if(j<row16) asm volatile("ld.global.cg.v4.s32 {%0,%1,%2,%3},[%4];":"=r"(v[u].x),"=r"(v[u].y),"=r"(v[u].z),"=r"(v[u].w):"l"(p+j)); else v[u]=make_int4(0,0,0,0);}
    #pragma unroll
    for(int u=0;u<4;u++){ int j=i+u*blockDim.x; acc+=v[u].y; if(write&&j<row16) b[(size_t)blockIdx.x*row16+j]=v[u]; } }
  if(acc==12345) sink[0]=acc;
}
// streams: each multiprocessor reads stream group[smid], lines of 128 bytes by warps; delay: start offset of odd positions (cycles)
__global__ void streams(const char*buf,size_t each,const int*grp,const int*del,int passes,int*sink,int seg){
  const int s=smid(); const char*p=buf+(size_t)grp[s]*each; long long c=clock64(); while(clock64()-c<del[s]);
  int w=threadIdx.x; int acc=0; size_t step=(size_t)blockDim.x*16;
  for(int q=0;q<passes;q++) for(size_t o=0;o<each;o+=step*8){ int4 v[8];
    #pragma unroll
    for(int u=0;u<8;u++){ size_t i=o+u*step+(size_t)w*16; 
      if(seg<128){ // pieces of seg bytes: rows interleaved
        size_t lane=(i/16)%256; size_t blk=i/(256*16); int per=seg/16; size_t row=lane/per, col=lane%per; int np=128/seg; // cover 256 chunks as rows x seg at line pitch, over np steps
        size_t sub=blk%np; size_t b0=blk/np; i=b0*(256*16)*np + row*128 + sub*seg + col*16; }
      asm volatile("ld.global.cg.v4.s32 {%0,%1,%2,%3},[%4];":"=r"(v[u].x),"=r"(v[u].y),"=r"(v[u].z),"=r"(v[u].w):"l"(p+i)); }
    #pragma unroll
    for(int u=0;u<8;u++) acc+=v[u].x; }
  if(acc==12345) sink[0]=acc;
}
template<class F> double tm(F f,int reps){ cudaEvent_t a,b; cudaEventCreate(&a);cudaEventCreate(&b); if(reps>1) f(); std::vector<float> v; for(int i=0;i<reps;i++){cudaEventRecord(a); f(); cudaEventRecord(b); cudaEventSynchronize(b); float t; cudaEventElapsedTime(&t,a,b); v.push_back(t);} std::sort(v.begin(),v.end()); return v[reps/2]; }
int REPS=9; char*A,*B; int*sink; int line=0;
template<int S,int NC> void go(int m,int n,int kbytes,int bm,int bn,int kb,int thr,int group){
  if((bm+bn)*kb/16/thr!=NC) {printf("bad NC\n");return;}
  int smem=S*(bm+bn)*kb; CK(cudaFuncSetAttribute(loads<S,NC>,cudaFuncAttributeMaxDynamicSharedMemorySize,smem)); int occ=0; cudaOccupancyMaxActiveBlocksPerMultiprocessor(&occ,loads<S,NC>,thr,smem);
  int grid=((m+bm-1)/bm)*((n+bn-1)/bn);
  double t=tm([&]{loads<S,NC><<<grid,thr,smem>>>(A,B,m,n,kbytes,bm,bn,kb,group,sink);},REPS); CK(cudaGetLastError());
  double asked=(double)grid*(kbytes/kb)*(bm+bn)*kb;
  printf("%d loads m %d kbytes %d tile %dx%dx%dB thr %d stages %d group %d occ %d ms %.4f asked_bytes %.0f TB/s %.2f\n",line++,m,kbytes,bm,bn,kb,thr,S,group,occ,t,asked,asked/t/1e9); fflush(stdout);
}
int main(int argc,char**argv){ if(argc>1) REPS=1;
  size_t N=(size_t)1<<30; CK(cudaMalloc(&A,N)); CK(cudaMalloc(&B,N)); cudaMemset(A,1,N); cudaMemset(B,1,N); cudaMalloc(&sink,64); cudaDeviceSynchronize();
  for(int k: {2048,4096}) for(int grp: {8,1}){ int m=k,kb=k*2;
   go<4,8>(m,m,kb,64,64,128,128,grp); go<3,8>(m,m,kb,64,64,128,128,grp); go<2,8>(m,m,kb,64,64,128,128,grp); go<4,12>(m,m,kb,128,64,128,128,grp); go<4,12>(m,m,kb,64,128,128,128,grp); go<3,8>(m,m,kb,128,128,128,256,grp); go<3,16>(m,m,kb,128,128,128,128,grp); go<4,8>(m,m,kb,128,128,64,128,grp); go<4,4>(m,m,kb,64,64,64,128,grp); go<4,2>(m,m,kb,64,64,32,128,grp); go<3,12>(m,m,kb,128,256,128,256,grp); go<4,12>(m,m,kb,128,256,128,256,grp); go<2,12>(m,m,kb,128,256,128,256,grp); go<3,12>(m,m,kb,256,128,128,256,grp); go<3,16>(m,m,kb,64,64,256,128,grp); go<2,16>(m,m,kb,64,64,256,128,grp);}
  for(int write: {0,1}) for(int row: {8192,16384,32768,65536}) for(int occ: {2,4,8,16}){ int thr=128; int smem=(occ==2?110000:occ==4?54000:occ==8?26000:12500); CK(cudaFuncSetAttribute(again,cudaFuncAttributeMaxDynamicSharedMemorySize,smem)); int o=0; cudaOccupancyMaxActiveBlocksPerMultiprocessor(&o,again,thr,smem); int grid=(int)(((size_t)512<<20)/row);
    double t=tm([&]{again<<<grid,thr,smem>>>((int4*)A,(int4*)B,row/16,write,1,sink);},std::min(REPS,5)); CK(cudaGetLastError());
    printf("%d again write %d row %d occ %d live_MB %.1f ms %.4f bytes %.0f\n",line++,write,row,o,132.0*o*row*(1+write)/1e6,t,(double)grid*row); fflush(stdout);} 
  int*dg,*dd; cudaMalloc(&dg,1024); cudaMalloc(&dd,1024); cudaMemset(dd,0,1024); size_t each=(size_t)256<<10; // sharing; a group for each multiprocessor
  auto share=[&](const char*name,auto group){ std::vector<int> g(132); for(int i=0;i<132;i++) g[i]=group(i); cudaMemcpy(dg,g.data(),132*4,cudaMemcpyHostToDevice);
    CK(cudaFuncSetAttribute(streams,cudaFuncAttributeMaxDynamicSharedMemorySize,120000)); int passes=128;
    double t=tm([&]{streams<<<132,1024,120000>>>(A,each,dg,dd,passes,sink,128);},std::min(REPS,5)); printf("%d share %s ms %.4f asked TB/s %.2f\n",line++,name,t,132.0*each*passes/t/1e9); };
  share("own",[](int i){return i;}); share("tpc pairs",[](int i){return i/2;}); share("4 neighbours",[](int i){return i/4;}); share("6 neighbours",[](int i){return i/6;}); share("pairs i,i+66",[](int i){return i%66;}); share("all",[](int){return 0;});
  return 0; }
