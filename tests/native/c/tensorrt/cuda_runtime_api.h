// The one type of CUDA's that TensorRT's functions take.
#pragma once
typedef struct CUstream_st* cudaStream_t;
