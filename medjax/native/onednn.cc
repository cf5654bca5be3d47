// Convolutions of oneDNN as XLA FFI handlers: forward, backward-data and backward-weights, channels last.
#include <cstdlib>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using Dims = memory::dims;

enum Kind : int64_t { kForward, kBackwardData, kBackwardWeights };

const dnnl::engine& Cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// What a call computes; the key of the cache.
struct Geometry {
  Kind kind;
  memory::data_type dtype;
  int64_t groups;
  Dims x, w, y, stride, dilation, low;

  std::vector<int64_t> Key() const {
    std::vector<int64_t> key{kind, static_cast<int64_t>(dtype), groups};
    for (const Dims* part : {&x, &w, &y, &stride, &dilation, &low}) key.insert(key.end(), part->begin(), part->end());
    return key;
  }
};

struct HashKey {
  size_t operator()(const std::vector<int64_t>& key) const {
    size_t hash = key.size();
    for (int64_t v : key) hash = (hash ^ static_cast<size_t>(v)) * 0x9E3779B97F4A7C15ull + (hash >> 29);
    return hash;
  }
};

// (B, *space, C) in memory, (B, C, *space) to oneDNN.
memory::desc Image(const Dims& shape, memory::data_type dtype) {
  static const memory::format_tag tags[] = {memory::format_tag::nwc, memory::format_tag::nhwc,
                                            memory::format_tag::ndhwc};
  Dims dims{shape.front(), shape.back()};
  dims.insert(dims.end(), shape.begin() + 1, shape.end() - 1);
  return {dims, dtype, tags[shape.size() - 3]};
}

Dims KernelDims(const Geometry& g) {
  const size_t n = g.w.size() - 2;
  Dims dims{g.w[n + 1] / g.groups, g.w[n]};
  if (g.groups > 1) dims.insert(dims.begin(), g.groups);
  dims.insert(dims.end(), g.w.begin(), g.w.begin() + n);
  return dims;
}

// (*kernel, I/groups, O) in memory, ([groups,] O/groups, I/groups, *kernel) to oneDNN.
memory::desc Kernel(const Geometry& g) {
  using tag = memory::format_tag;
  static const tag dense[] = {tag::wio, tag::hwio, tag::dhwio}, grouped[] = {tag::wigo, tag::hwigo, tag::dhwigo};
  return {KernelDims(g), g.dtype, (g.groups > 1 ? grouped : dense)[g.w.size() - 3]};
}

// A convolution made ready for one geometry. The kernel is reordered to the layout that oneDNN likes best.
struct Plan {
  dnnl::primitive convolution, reorder;
  memory::desc x, w, y, inner_w, scratch;
  bool reordered = false;

  explicit Plan(const Geometry& g) : x(Image(g.x, g.dtype)), w(Kernel(g)), y(Image(g.y, g.dtype)) {
    const memory::desc any(KernelDims(g), g.dtype, memory::format_tag::any);
    Dims dilation, high;
    for (size_t i = 0; i < g.stride.size(); ++i) {
      dilation.push_back(g.dilation[i] - 1);
      const int64_t reach = (g.y[i + 1] - 1) * g.stride[i] + (g.w[i] - 1) * g.dilation[i] + 1;
      high.push_back(std::max<int64_t>(reach - g.x[i + 1] - g.low[i], 0));
    }
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const auto algorithm = dnnl::algorithm::convolution_direct;
    const dnnl::convolution_forward::primitive_desc forward(
        Cpu(), dnnl::prop_kind::forward_training, algorithm, x, any, y, g.stride, dilation, g.low, high, attr);
    if (g.kind == kForward) {
      Use<dnnl::convolution_forward>(forward);
    } else if (g.kind == kBackwardData) {
      Use<dnnl::convolution_backward_data>(dnnl::convolution_backward_data::primitive_desc(
          Cpu(), algorithm, x, any, y, g.stride, dilation, g.low, high, forward, attr));
    } else {
      Use<dnnl::convolution_backward_weights>(dnnl::convolution_backward_weights::primitive_desc(
          Cpu(), algorithm, x, any, y, g.stride, dilation, g.low, high, forward, attr));
    }
    reordered = inner_w != w;
    if (reordered) {
      const bool out = g.kind == kBackwardWeights;
      reorder = dnnl::reorder(dnnl::reorder::primitive_desc(Cpu(), out ? inner_w : w, Cpu(), out ? w : inner_w));
    }
  }

  template <typename Primitive>
  void Use(const typename Primitive::primitive_desc& desc) {
    convolution = Primitive(desc);
    if constexpr (std::is_same_v<Primitive, dnnl::convolution_backward_weights>) {
      inner_w = desc.diff_weights_desc();
    } else {
      inner_w = desc.weights_desc();
    }
    scratch = desc.scratchpad_desc();
  }
};

std::shared_ptr<const Plan> FindPlan(const Geometry& g) {
  static std::mutex mutex;
  static auto* plans = new std::unordered_map<std::vector<int64_t>, std::shared_ptr<const Plan>, HashKey>();
  const auto key = g.Key();
  const std::lock_guard<std::mutex> lock(mutex);
  auto& plan = (*plans)[key];
  if (!plan) plan = std::make_shared<const Plan>(g);
  return plan;
}

void Execute(const Geometry& g, void* x, void* w, void* y) {
  const auto plan = FindPlan(g);
  static std::mutex one_at_a_time;  // every call uses all cores
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  static dnnl::stream stream(Cpu());
  static std::vector<char> inner, scratch;
  inner.resize(std::max(inner.size(), plan->reordered ? plan->inner_w.get_size() + 64 : 0));
  scratch.resize(std::max(scratch.size(), plan->scratch.get_size() + 64));
  auto align = [](std::vector<char>& v) { return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(v.data()) + 63) & ~uintptr_t{63}); };
  const memory outer_w(plan->w, Cpu(), w);
  const memory inner_w = plan->reordered ? memory(plan->inner_w, Cpu(), align(inner)) : outer_w;
  const memory scratchpad(plan->scratch, Cpu(), align(scratch));
  const memory image_x(plan->x, Cpu(), x), image_y(plan->y, Cpu(), y);
  auto reorder = [&](const memory& from, const memory& to) {
    if (plan->reordered) plan->reorder.execute(stream, {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
  };
  if (g.kind == kForward) {
    reorder(outer_w, inner_w);
    plan->convolution.execute(stream, {{DNNL_ARG_SRC, image_x}, {DNNL_ARG_WEIGHTS, inner_w}, {DNNL_ARG_DST, image_y}, {DNNL_ARG_SCRATCHPAD, scratchpad}});
  } else if (g.kind == kBackwardData) {
    reorder(outer_w, inner_w);
    plan->convolution.execute(stream, {{DNNL_ARG_DIFF_SRC, image_x}, {DNNL_ARG_WEIGHTS, inner_w}, {DNNL_ARG_DIFF_DST, image_y}, {DNNL_ARG_SCRATCHPAD, scratchpad}});
  } else {
    plan->convolution.execute(stream, {{DNNL_ARG_SRC, image_x}, {DNNL_ARG_DIFF_WEIGHTS, inner_w}, {DNNL_ARG_DIFF_DST, image_y}, {DNNL_ARG_SCRATCHPAD, scratchpad}});
    reorder(inner_w, outer_w);
  }
  stream.wait();
}

ffi::Error Convolve(ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> c, int64_t kind,
                    ffi::Span<const int64_t> stride, ffi::Span<const int64_t> dilation,
                    ffi::Span<const int64_t> low, int64_t groups) {
  const ffi::AnyBuffer& r = *c;
  const ffi::AnyBuffer& x = kind == kBackwardData ? r : a;
  const ffi::AnyBuffer& w = kind == kBackwardWeights ? r : b;
  const ffi::AnyBuffer& y = kind == kForward ? r : kind == kBackwardData ? a : b;
  auto dims = [](auto span) { return Dims(span.begin(), span.end()); };
  const auto dtype = x.element_type() == ffi::BF16 ? memory::data_type::bf16 : memory::data_type::f32;
  try {
    Execute({static_cast<Kind>(kind), dtype, groups, dims(x.dimensions()), dims(w.dimensions()),
             dims(y.dimensions()), dims(stride), dims(dilation), dims(low)},
            x.untyped_data(), w.untyped_data(), y.untyped_data());
  } catch (const dnnl::error& error) {
    return ffi::Error::Internal(std::string("oneDNN convolution: ") + error.message);
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(MedjaxConvolve, Convolve,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("kind")
                                  .Attr<ffi::Span<const int64_t>>("stride")
                                  .Attr<ffi::Span<const int64_t>>("dilation")
                                  .Attr<ffi::Span<const int64_t>>("low")
                                  .Attr<int64_t>("groups"));
