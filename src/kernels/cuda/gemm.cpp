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
  int spared = 0;   // multiprocessors for others
  auto key() const {
    return std::tie(a_transposed, b_transposed, m, n, k, lda, ldb, ldc, format, out_format, epilogue, accumulate, spared);
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
  // Which of the library's proposals new plans take, when a measurement asks for one; else CHOICES says.
  int asked = -1;
  // Multiprocessors that products leave to others from now on.
  int spared = 0;
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
  if (shape.spared) {
    int device = 0, all = 0;
    good = good && cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&all, cudaDevAttrMultiProcessorCount, device) == cudaSuccess;
    if (all > 2 * shape.spared) good = good && set(CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, int32_t(all - shape.spared));
  }
  const auto layout = [](cublasLtMatrixLayout_t *to, int format, int64_t rows, int64_t columns, int64_t stride) {
    return cublasLtMatrixLayoutCreate(to, type(format), uint64_t(rows), uint64_t(columns), stride) == CUBLAS_STATUS_SUCCESS;
  };
  return good && layout(&plan.a, shape.format, shape.a_transposed ? shape.k : shape.m, shape.a_transposed ? shape.m : shape.k, shape.lda) &&
         layout(&plan.b, shape.format, shape.b_transposed ? shape.n : shape.k, shape.b_transposed ? shape.k : shape.n, shape.ldb) &&
         layout(&plan.c, shape.out_format, shape.m, shape.n, shape.ldc);
}

constexpr int PROPOSALS = 8;

// Products for which another than the library's first proposal was measured to be faster, on an H200 (tests/gpu/products.py).
struct Choice {
  int a_transposed, b_transposed, epilogue;
  int64_t m, n, k;
  int proposal;
};
constexpr size_t MEASURED_VERSION = 1301;
// With cuBLAS 13.1 and 16,384 tokens (taken for a few fewer, too), each repeated until the card was at its power limit, as
// it is in a step; columns: wᵀ (products y), w (dx), xᵀ (dw), then m, n, k in column-major words.
constexpr Choice CHOICES[] = {
    {1, 0, BIAS, 6144, 16384, 2048, 1},                                         {0, 1, NONE, 2048, 6144, 16384, 1},  //
    {1, 0, NONE, 2048, 16384, 2048, 5},                                         // 2048 -> 2048
    {1, 0, NONE, 8192, 16384, 2048, 6},                                         {0, 1, NONE, 2048, 8192, 16384, 1},  //
    {1, 0, NONE, 2048, 16384, 8192, 1},  {0, 0, NONE, 8192, 16384, 2048, 6},    // 8192 -> 2048
    {1, 0, NONE, 3072, 16384, 2048, 6},                                         {0, 1, NONE, 2048, 3072, 16384, 6},  //
                                         {0, 0, NONE, 3072, 16384, 2048, 6},    {0, 1, NONE, 3072, 2048, 16384, 3},  //
    {1, 0, NONE, 50304, 16384, 2048, 6},                                        // the head
};

int choice(const Shape &shape) {
  // Another version proposes in another order.
  if (cublasLtGetVersion() / 100 != MEASURED_VERSION) return 0;
  // The number of tokens is n, or k in the gradient of a weight; a last token per sequence has no label.
  const auto near = [](int64_t tokens) { return (tokens + 255) / 256 * 256; };
  const int64_t n = shape.b_transposed ? shape.n : near(shape.n), k = shape.b_transposed ? near(shape.k) : shape.k;
  for (const Choice &one : CHOICES)
    if (shape.format == 1 && one.a_transposed == shape.a_transposed && one.b_transposed == shape.b_transposed &&
        one.epilogue == shape.epilogue && one.m == shape.m && one.n == n && one.k == k)
      return one.proposal;
  return 0;
}

// The library's proposal to take: the same on every run of one machine, so results keep their bits.
int choose(Gemm &gemm, const Shape &shape, Plan &plan, int alignment) {
  cublasLtMatmulPreference_t preference = nullptr;
  if (cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS) return fail("cuBLASLt: no preference");
  const uint32_t bytes = uint32_t(alignment);
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE, sizeof WORKSPACE);
  for (auto what : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    cublasLtMatmulPreferenceSetAttribute(preference, what, &bytes, sizeof bytes);
  cublasLtMatmulHeuristicResult_t results[PROPOSALS]{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(gemm.handle, plan.operation, plan.a, plan.b, plan.c, plan.c,
                                                               preference, PROPOSALS, results, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS || found == 0)
    return fail(std::string("cuBLASLt has no algorithm: ") + cublasLtGetStatusString(status));
  // What was measured is for all multiprocessors.
  const int wanted = gemm.asked >= 0 ? gemm.asked : shape.spared ? 0 : choice(shape);
  plan.algorithm = results[wanted < found ? wanted : 0].algo;
  return 0;
}

int run(Gemm &gemm, cudaStream_t stream, Shape shape, const void *a, const void *b, void *c, const void *bias, void *aux) {
  if (shape.m == 0 || shape.n == 0) return 0;
  const std::lock_guard<std::mutex> guard(gemm.lock);
  shape.spared = gemm.spared;
  auto &plan = gemm.plans[shape];
  if (!plan) {
    auto made = std::make_unique<Plan>();
    // Biases are views of one flat buffer; candle's own tensors begin at 256 bytes.
    const int alignment = 16;
    if (!describe(*made, shape)) return fail("cuBLASLt refuses the product's description");
    if (bias) cublasLtMatmulDescSetAttribute(made->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    if (aux) cublasLtMatmulDescSetAttribute(made->operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &aux, sizeof aux);
    if (const int rc = choose(gemm, shape, *made, alignment)) return rc;
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

extern "C" int64_t sft_cublas_version() { return int64_t(cublasLtGetVersion()); }

// Forgets all plans; new ones take the library's proposal of this number (0 is its first), or with -1 what is best known.
extern "C" void sft_gemm_ask(void *handle, int proposal) {
  auto &gemm = *static_cast<sft::Gemm *>(handle);
  const std::lock_guard<std::mutex> guard(gemm.lock);
  gemm.plans.clear();
  gemm.asked = proposal;
}

// From now on products leave so many multiprocessors to others: one that has its work cut for all of them is only over when
// those that another had taken have done their part too.
extern "C" void sft_gemm_spare(void *handle, int multiprocessors) {
  auto &gemm = *static_cast<sft::Gemm *>(handle);
  const std::lock_guard<std::mutex> guard(gemm.lock);
  gemm.spared = multiprocessors;
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

// dw [outputs, inputs], f32, = dyᵀ·x, or with `add` +=.
extern "C" int sft_linear_backward_weight(void *gemm, void *stream, int format, const void *dy, const void *x, float *dw,
                                          int add, int64_t tokens, int64_t inputs, int64_t outputs) {
  const sft::Shape shape{0, 1, inputs, outputs, tokens, inputs, outputs, inputs, format, 0, sft::NONE, add};
  return sft::run(*static_cast<sft::Gemm *>(gemm), cudaStream_t(stream), shape, x, dy, dw, nullptr, nullptr);
}
