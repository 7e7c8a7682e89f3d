// cuDNN's fused attention for bf16 and f16: causal, deterministic, grouped queries, sequences of one or of many lengths.
//
// cuDNN is opened when attention first runs, through cudnn-frontend's headers, so that a machine without it still
// starts the program. The tensors are views of the fused qkv tensor [tokens, per group: query heads, key, value].
#include "libraries.h"

#include <cudnn_frontend.h>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <tuple>
#include <unordered_map>

namespace fe = cudnn_frontend;
namespace cudnn_frontend { void *cudnn_dlhandle = nullptr; }

namespace sft {
namespace {

enum Name : int64_t { Q = 1, K, V, O, STATISTICS, D_O, D_Q, D_K, D_V, LENGTHS, QKV_OFFSETS, O_OFFSETS };

struct Shape {
  int64_t sequences, length;   // the longest, when `packed`
  int64_t heads, groups, head_dim;
  float scale;
  int format, packed;
  auto key() const { return std::tie(sequences, length, heads, groups, head_dim, scale, format, packed); }
  bool operator<(const Shape &other) const { return key() < other.key(); }
  int64_t per_group() const { return heads / groups; }
  // With one query head per group all heads lie evenly and run as one call; else each group is a call of its own.
  int64_t calls() const { return per_group() == 1 ? 1 : groups; }
  int64_t width() const { return (heads + 2 * groups) * head_dim; }
};

struct Plan {
  std::shared_ptr<fe::graph::Graph> forward, backward;
  int64_t forward_bytes = 0, backward_bytes = 0;
};

struct Sdpa {
  cudnnHandle_t handle = nullptr;
  Workspace workspace;
  std::map<Shape, Plan> plans;
  ~Sdpa() {
    plans.clear();
    if (handle) fe::detail::destroy_handle(handle);
  }
};

using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

// One graph's inputs.
struct Builder {
  const Shape &shape;
  std::shared_ptr<fe::graph::Graph> graph = std::make_shared<fe::graph::Graph>();
  Tensor lengths, qkv_offsets, o_offsets;

  explicit Builder(const Shape &of) : shape(of) {
    graph->set_io_data_type(of.format == 1 ? fe::DataType_t::BFLOAT16 : fe::DataType_t::HALF)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (!of.packed) return;
    lengths = integers("lengths", LENGTHS, of.sequences);
    qkv_offsets = integers("qkv_offsets", QKV_OFFSETS, of.sequences + 1);
    o_offsets = integers("o_offsets", O_OFFSETS, of.sequences + 1);
  }
  Tensor integers(const char *name, int64_t uid, int64_t count) {
    return graph->tensor(fe::graph::Tensor_attributes().set_name(name).set_uid(uid).set_dim({count, 1, 1, 1})
                             .set_stride({1, 1, 1, 1}).set_data_type(fe::DataType_t::INT32));
  }
  std::vector<int64_t> dims(bool query) const {
    const int64_t heads = shape.per_group() == 1 ? shape.heads : query ? shape.per_group() : 1;
    return {shape.sequences, heads, shape.length, shape.head_dim};
  }
  std::vector<int64_t> qkv_strides() const {
    const int64_t head = shape.per_group() == 1 ? 3 * shape.head_dim : shape.head_dim;
    return {shape.length * shape.width(), head, shape.width(), 1};
  }
  std::vector<int64_t> o_strides() const {
    const int64_t width = shape.heads * shape.head_dim;
    return {shape.length * width, shape.head_dim, width, 1};
  }
  Tensor input(const char *name, int64_t uid, bool query, bool output_layout) {
    auto attributes = fe::graph::Tensor_attributes().set_name(name).set_uid(uid).set_dim(dims(query))
                          .set_stride(output_layout ? o_strides() : qkv_strides());
    if (shape.packed) attributes.set_ragged_offset(output_layout ? o_offsets : qkv_offsets);
    return graph->tensor(attributes);
  }
  void output(const Tensor &tensor, int64_t uid, bool query, bool output_layout) {
    tensor->set_output(true).set_uid(uid).set_dim(dims(query)).set_stride(output_layout ? o_strides() : qkv_strides());
    if (shape.packed) tensor->set_ragged_offset(output_layout ? o_offsets : qkv_offsets);
  }
  template <typename A> A options(A attributes) {
    attributes.set_attn_scale(shape.scale);
    attributes.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT).set_diagonal_band_right_bound(0);
    if (shape.packed) attributes.set_padding_mask(true).set_seq_len_q(lengths).set_seq_len_kv(lengths);
    return attributes;
  }
};

int build(Builder &builder, cudnnHandle_t handle, int64_t *bytes, const char *what) {
  auto status = builder.graph->build(handle, {fe::HeurMode_t::A});
  if (status.is_good()) status = builder.graph->get_workspace_size(*bytes);
  return status.is_good() ? 0 : fail(std::string("cuDNN's attention (") + what + "): " + status.get_message());
}

int build_forward(Plan &plan, cudnnHandle_t handle, const Shape &shape) {
  Builder builder(shape);
  auto q = builder.input("q", Q, true, false), k = builder.input("k", K, false, false), v = builder.input("v", V, false, false);
  auto options = builder.options(fe::graph::SDPA_attributes().set_name("forward"));
  options.set_generate_stats(true);
  auto [o, statistics] = builder.graph->sdpa(q, k, v, options);
  builder.output(o, O, true, true);
  statistics->set_output(true).set_uid(STATISTICS).set_data_type(fe::DataType_t::FLOAT);
  plan.forward = builder.graph;
  return build(builder, handle, &plan.forward_bytes, "forward");
}

int build_backward(Plan &plan, cudnnHandle_t handle, const Shape &shape) {
  Builder builder(shape);
  auto q = builder.input("q", Q, true, false), k = builder.input("k", K, false, false), v = builder.input("v", V, false, false);
  auto o = builder.input("o", O, true, true), d_o = builder.input("d_o", D_O, true, true);
  const auto dims = builder.dims(true);
  auto statistics = builder.graph->tensor(fe::graph::Tensor_attributes().set_name("statistics").set_uid(STATISTICS)
                                              .set_dim({dims[0], dims[1], dims[2], 1})
                                              .set_stride({dims[1] * dims[2], dims[2], 1, 1})
                                              .set_data_type(fe::DataType_t::FLOAT));
  auto options = builder.options(fe::graph::SDPA_backward_attributes().set_name("backward"));
  options.set_deterministic_algorithm(true);
  auto [d_q, d_k, d_v] = builder.graph->sdpa_backward(q, k, v, o, d_o, statistics, options);
  builder.output(d_q, D_Q, true, false);
  builder.output(d_k, D_K, false, false);
  builder.output(d_v, D_V, false, false);
  plan.backward = builder.graph;
  return build(builder, handle, &plan.backward_bytes, "backward");
}

// Pointers of one call: numbers of `size` bytes, group `call`.
struct Pointers {
  const Shape &shape;
  int64_t query, key, value, out, statistics;
  Pointers(const Shape &of, int64_t call) : shape(of) {
    const int64_t group = (of.per_group() + 2) * of.head_dim;
    query = call * group;
    key = query + of.per_group() * of.head_dim;
    value = key + of.head_dim;
    out = call * of.per_group() * of.head_dim;
    statistics = call * of.per_group() * of.sequences * of.length;
  }
  static void *at(const void *base, int64_t offset) { return const_cast<char *>(static_cast<const char *>(base)) + 2 * offset; }
};

} // namespace
} // namespace sft

static bool is_open() {
  if (!fe::cudnn_dlhandle) fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_GLOBAL);
  return fe::cudnn_dlhandle;
}

// Opens cuDNN; null when it is not there (sft_library_error says why).
extern "C" void *sft_sdpa_create() {
  if (!is_open()) {
    sft::fail(dlerror());
    return nullptr;
  }
  auto sdpa = std::make_unique<sft::Sdpa>();
  if (fe::detail::create_handle(&sdpa->handle) != CUDNN_STATUS_SUCCESS) {
    sft::fail("cuDNN does not start");
    return nullptr;
  }
  return sdpa.release();
}

extern "C" void sft_sdpa_destroy(void *sdpa) { delete static_cast<sft::Sdpa *>(sdpa); }

// cuDNN's version number, such as 91900; 0 when it is not there.
extern "C" int64_t sft_cudnn_version() { return is_open() ? int64_t(fe::detail::get_backend_version()) : 0; }

// Numbers of f32 that the statistics take: [calls, sequences, heads per call, length].
extern "C" int64_t sft_sdpa_statistics(int64_t sequences, int64_t length, int64_t heads) { return sequences * length * heads; }

// output of qkv. `lengths` [sequences], `qkv_offsets` and `o_offsets` [sequences + 1] (in numbers) are i32 on the device, or
// null when all sequences are `length` long.
extern "C" int sft_sdpa_forward(void *handle, void *stream, int format, int64_t sequences, int64_t length, int64_t heads,
                                int64_t groups, int64_t head_dim, float scale, const void *lengths, const void *qkv_offsets,
                                const void *o_offsets, const void *qkv, void *output, float *statistics) {
  auto &sdpa = *static_cast<sft::Sdpa *>(handle);
  const sft::Shape shape{sequences, length, heads, groups, head_dim, scale, format, lengths != nullptr};
  auto &plan = sdpa.plans[shape];
  if (!plan.forward)
    if (const int rc = sft::build_forward(plan, sdpa.handle, shape)) return plan.forward = nullptr, rc;
  if (const int rc = sdpa.workspace.reserve(size_t(plan.forward_bytes))) return rc;
  fe::detail::set_stream(sdpa.handle, cudaStream_t(stream));
  for (int64_t call = 0; call < shape.calls(); call++) {
    const sft::Pointers at(shape, call);
    std::unordered_map<int64_t, void *> pack{{sft::Q, at.at(qkv, at.query)}, {sft::K, at.at(qkv, at.key)}, {sft::V, at.at(qkv, at.value)},
                                             {sft::O, at.at(output, at.out)}, {sft::STATISTICS, statistics + at.statistics}};
    if (lengths) {
      pack[sft::LENGTHS] = const_cast<void *>(lengths);
      pack[sft::QKV_OFFSETS] = const_cast<void *>(qkv_offsets);
      pack[sft::O_OFFSETS] = const_cast<void *>(o_offsets);
    }
    auto status = plan.forward->execute(sdpa.handle, pack, sdpa.workspace.at);
    if (status.is_bad()) return sft::fail("cuDNN's attention: " + status.get_message());
  }
  return 0;
}

// dqkv, in qkv's layout, from d_output and what the forward gave.
extern "C" int sft_sdpa_backward(void *handle, void *stream, int format, int64_t sequences, int64_t length, int64_t heads,
                                 int64_t groups, int64_t head_dim, float scale, const void *lengths, const void *qkv_offsets,
                                 const void *o_offsets, const void *qkv, const void *output, float *statistics,
                                 const void *d_output, void *dqkv) {
  auto &sdpa = *static_cast<sft::Sdpa *>(handle);
  const sft::Shape shape{sequences, length, heads, groups, head_dim, scale, format, lengths != nullptr};
  auto &plan = sdpa.plans[shape];
  if (!plan.backward)
    if (const int rc = sft::build_backward(plan, sdpa.handle, shape)) return plan.backward = nullptr, rc;
  if (const int rc = sdpa.workspace.reserve(size_t(plan.backward_bytes))) return rc;
  fe::detail::set_stream(sdpa.handle, cudaStream_t(stream));
  for (int64_t call = 0; call < shape.calls(); call++) {
    const sft::Pointers at(shape, call);
    std::unordered_map<int64_t, void *> pack{
        {sft::Q, at.at(qkv, at.query)},      {sft::K, at.at(qkv, at.key)},        {sft::V, at.at(qkv, at.value)},
        {sft::O, at.at(output, at.out)},     {sft::D_O, at.at(d_output, at.out)}, {sft::STATISTICS, statistics + at.statistics},
        {sft::D_Q, at.at(dqkv, at.query)},   {sft::D_K, at.at(dqkv, at.key)},     {sft::D_V, at.at(dqkv, at.value)}};
    if (lengths) {
      pack[sft::LENGTHS] = const_cast<void *>(lengths);
      pack[sft::QKV_OFFSETS] = const_cast<void *>(qkv_offsets);
      pack[sft::O_OFFSETS] = const_cast<void *>(o_offsets);
    }
    auto status = plan.backward->execute(sdpa.handle, pack, sdpa.workspace.at);
    if (status.is_bad()) return sft::fail("cuDNN's attention: " + status.get_message());
  }
  return 0;
}
