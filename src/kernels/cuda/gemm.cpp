// Matrix products through cuBLASLt: row-major tensors, f32 sums, products added to f32 gradients.
#include "libraries.h"

#include <cublasLt.h>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

namespace sft {

static thread_local std::string last_error;

int fail(const std::string &what) {
  last_error = what;
  return 999;   // cudaErrorUnknown: the text says more
}

namespace {

enum Epilogue : int { NONE = 0, BIAS = 1, BIAS_GELU = 2 };

// Everything that a plan depends on, in cuBLASLt's column-major words.
struct Shape {
  int a_transposed, b_transposed;
  int64_t m, n, k, lda, ldb, ldc;
  int format, out_format, epilogue, accumulate;
  auto key() const {
    return std::tie(a_transposed, b_transposed, m, n, k, lda, ldb, ldc, format, out_format, epilogue, accumulate);
  }
  bool operator<(const Shape &other) const { return key() < other.key(); }
};

struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  ~Plan() {
    if (a) cublasLtMatrixLayoutDestroy(a);
    if (b) cublasLtMatrixLayoutDestroy(b);
    if (c) cublasLtMatrixLayoutDestroy(c);
    if (operation) cublasLtMatmulDescDestroy(operation);
  }
};

struct Gemm {
  cublasLtHandle_t handle = nullptr;
  Workspace workspace;
  std::map<Shape, std::unique_ptr<Plan>> plans;
  std::mutex lock;
  ~Gemm() {
    plans.clear();
    if (handle) cublasLtDestroy(handle);
  }
};

constexpr size_t WORKSPACE = 32u << 20;

cudaDataType_t type(int format) { return format == 0 ? CUDA_R_32F : format == 1 ? CUDA_R_16BF : CUDA_R_16F; }

// The plan's description of the product; pointers of bias and aux are set at each call.
bool describe(Plan &plan, const Shape &shape) {
  const cublasOperation_t transposed[2] = {CUBLAS_OP_N, CUBLAS_OP_T};
  const auto set = [&](cublasLtMatmulDescAttributes_t what, auto value) {
    return cublasLtMatmulDescSetAttribute(plan.operation, what, &value, sizeof value) == CUBLAS_STATUS_SUCCESS;
  };
  if (cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS) return false;
  bool good = set(CUBLASLT_MATMUL_DESC_TRANSA, transposed[shape.a_transposed]) &&
              set(CUBLASLT_MATMUL_DESC_TRANSB, transposed[shape.b_transposed]);
  if (shape.epilogue == BIAS) good = good && set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  if (shape.epilogue == BIAS_GELU)
    good = good && set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_GELU_AUX_BIAS) &&
           set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, shape.ldc);
  const auto layout = [](cublasLtMatrixLayout_t *to, int format, int64_t rows, int64_t columns, int64_t stride) {
    return cublasLtMatrixLayoutCreate(to, type(format), uint64_t(rows), uint64_t(columns), stride) == CUBLAS_STATUS_SUCCESS;
  };
  return good && layout(&plan.a, shape.format, shape.a_transposed ? shape.k : shape.m, shape.a_transposed ? shape.m : shape.k, shape.lda) &&
         layout(&plan.b, shape.format, shape.b_transposed ? shape.n : shape.k, shape.b_transposed ? shape.k : shape.n, shape.ldb) &&
         layout(&plan.c, shape.out_format, shape.m, shape.n, shape.ldc);
}

// The library's first choice: the same on every run of one machine, so results keep their bits.
int choose(Gemm &gemm, Plan &plan, int alignment) {
  cublasLtMatmulPreference_t preference = nullptr;
  if (cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS) return fail("cuBLASLt: no preference");
  const uint32_t bytes = uint32_t(alignment);
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE, sizeof WORKSPACE);
  for (auto what : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    cublasLtMatmulPreferenceSetAttribute(preference, what, &bytes, sizeof bytes);
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(gemm.handle, plan.operation, plan.a, plan.b, plan.c, plan.c,
                                                               preference, 1, &result, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS || found == 0)
    return fail(std::string("cuBLASLt has no algorithm: ") + cublasLtGetStatusString(status));
  plan.algorithm = result.algo;
  return 0;
}

int run(Gemm &gemm, cudaStream_t stream, const Shape &shape, const void *a, const void *b, void *c, const void *bias, void *aux) {
  if (shape.m == 0 || shape.n == 0) return 0;
  const std::lock_guard<std::mutex> guard(gemm.lock);
  auto &plan = gemm.plans[shape];
  if (!plan) {
    auto made = std::make_unique<Plan>();
    // Biases are views of one flat buffer; candle's own tensors begin at 256 bytes.
    const int alignment = 16;
    if (!describe(*made, shape)) return fail("cuBLASLt refuses the product's description");
    if (bias) cublasLtMatmulDescSetAttribute(made->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    if (aux) cublasLtMatmulDescSetAttribute(made->operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &aux, sizeof aux);
    if (const int rc = choose(gemm, *made, alignment)) return rc;
    plan = std::move(made);
  }
  if (bias) cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
  if (aux) cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &aux, sizeof aux);
  if (const int rc = gemm.workspace.reserve(WORKSPACE)) return rc;
  const float one = 1.f, kept = shape.accumulate ? 1.f : 0.f;
  const cublasStatus_t status = cublasLtMatmul(gemm.handle, plan->operation, &one, a, plan->a, b, plan->b, &kept, c, plan->c, c,
                                               plan->c, &plan->algorithm, gemm.workspace.at, WORKSPACE, stream);
  return status == CUBLAS_STATUS_SUCCESS ? 0 : fail(std::string("cuBLASLt: ") + cublasLtGetStatusString(status));
}

} // namespace
} // namespace sft

// What went wrong in this thread's last call of a library.
extern "C" const char *sft_library_error() { return sft::last_error.c_str(); }

// The name of a CUDA runtime error.
extern "C" const char *sft_cuda_error(int code) { return cudaGetErrorString(cudaError_t(code)); }

extern "C" void *sft_gemm_create() {
  auto gemm = std::make_unique<sft::Gemm>();
  if (cublasLtCreate(&gemm->handle) != CUBLAS_STATUS_SUCCESS) {
    sft::fail("cuBLASLt does not start");
    return nullptr;
  }
  return gemm.release();
}

extern "C" void sft_gemm_destroy(void *gemm) { delete static_cast<sft::Gemm *>(gemm); }

// y [tokens, outputs] = x [tokens, inputs]·wᵀ (+ bias); with `before`, y is gelu_tanh of it and `before` gets the argument.
extern "C" int sft_linear_forward(void *gemm, void *stream, int format, const void *x, const void *weight, const void *bias,
                                  void *y, void *before, int64_t tokens, int64_t inputs, int64_t outputs) {
  const int epilogue = before ? sft::BIAS_GELU : bias ? sft::BIAS : sft::NONE;
  const sft::Shape shape{1, 0, outputs, tokens, inputs, inputs, inputs, outputs, format, format, epilogue, 0};
  return sft::run(*static_cast<sft::Gemm *>(gemm), cudaStream_t(stream), shape, weight, x, y, bias, before);
}

// dx [tokens, inputs] = dy [tokens, outputs]·w.
extern "C" int sft_linear_backward_input(void *gemm, void *stream, int format, const void *dy, const void *weight, void *dx,
                                         int64_t tokens, int64_t inputs, int64_t outputs) {
  const sft::Shape shape{0, 0, inputs, tokens, outputs, inputs, outputs, inputs, format, format, sft::NONE, 0};
  return sft::run(*static_cast<sft::Gemm *>(gemm), cudaStream_t(stream), shape, weight, dy, dx, nullptr, nullptr);
}

// dw [outputs, inputs], f32, += dyᵀ·x.
extern "C" int sft_linear_backward_weight(void *gemm, void *stream, int format, const void *dy, const void *x, float *dw,
                                          int64_t tokens, int64_t inputs, int64_t outputs) {
  const sft::Shape shape{0, 1, inputs, outputs, tokens, inputs, outputs, inputs, format, 0, sft::NONE, 1};
  return sft::run(*static_cast<sft::Gemm *>(gemm), cudaStream_t(stream), shape, x, dy, dw, nullptr, nullptr);
}
