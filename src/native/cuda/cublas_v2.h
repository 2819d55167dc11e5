// Names for handles that libtorch's CUDA headers mention, where CUDA's own headers are not installed. Nothing here looks into them.
#pragma once

typedef struct cublasContext* cublasHandle_t;
enum cublasStatus_t : int;
