// Convolutions of oneDNN as XLA FFI handlers: forward, backward-data and backward-weights, channels last.
#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

extern "C" int omp_get_max_threads();  // of the OpenMP that oneDNN's library brings

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using Dims = memory::dims;

enum Kind : int64_t { kForward, kBackwardData, kBackwardWeights };

struct ArgumentNames {
  int x, w, y;
};
constexpr ArgumentNames kArgumentNames[] = {{DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                                            {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST},
                                            {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST}};

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
  std::optional<float> leak;  // a bias is added, then what is negative multiplied by this

  std::vector<int64_t> Key() const {
    std::vector<int64_t> key{kind, static_cast<int64_t>(dtype), groups, leak ? std::llround(*leak * 1e6) : -1};
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

memory::desc Bias(const Geometry& g) { return {{g.y.back()}, memory::data_type::f32, memory::format_tag::x}; }

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

// Memory that grows and is kept, aligned to a cache line.
class Buffer {
 public:
  void* AtLeast(size_t size) {
    if (size > size_) {
      std::free(data_);
      size_ = 0;
      const size_t rounded = (size + 63) / 64 * 64;
      data_ = std::aligned_alloc(64, rounded);
      if (data_ == nullptr) throw std::bad_alloc();
      size_ = rounded;
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

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
    const auto training = dnnl::prop_kind::forward_training;
    if (g.leak && *g.leak != 1) {
      dnnl::post_ops then;
      then.append_eltwise(dnnl::algorithm::eltwise_relu, *g.leak, 0);
      attr.set_post_ops(then);
    }
    const memory::desc bias = g.leak ? Bias(g) : memory::desc();  // an empty one is no bias
    const dnnl::convolution_forward::primitive_desc forward(
        Cpu(), training, algorithm, x, any, bias, y, g.stride, dilation, g.low, high, attr);
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

// One thread makes all calls, and each call uses all cores: OpenMP keeps a team of threads per calling thread, and XLA
// calls from any thread of its pool, at times from two at once.
class Caller {
 public:
  static Caller& Get() {
    static auto* caller = new Caller();  // never destroyed: its thread lives as long as the process
    return *caller;
  }

  void Convolve(const Geometry& geometry, void* x, void* w, void* y, void* bias) {
    Run([&] { Execute(geometry, x, w, y, bias); });
  }

  // How many threads oneDNN divides a call among.
  int Threads() {
    int threads = 1;
    Run([&] { threads = omp_get_max_threads(); });
    return threads;
  }

 private:
  Caller() { std::thread([this] { Serve(); }).detach(); }

  // Returns when the call is done; throws what it throws.
  template <typename Function>
  void Run(const Function& function) {
    std::packaged_task<void()> call([&] { function(); });
    std::future<void> done = call.get_future();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      calls_.push_back(std::move(call));
    }
    arrived_.notify_one();
    done.get();
  }

  [[noreturn]] void Serve() {
    while (true) {
      std::unique_lock<std::mutex> lock(mutex_);
      arrived_.wait(lock, [this] { return !calls_.empty(); });
      std::packaged_task<void()> call = std::move(calls_.front());
      calls_.pop_front();
      lock.unlock();
      call();
    }
  }

  const Plan& Find(const Geometry& geometry) {
    std::unique_ptr<const Plan>& plan = plans_[geometry.Key()];
    if (!plan) plan = std::make_unique<const Plan>(geometry);
    return *plan;
  }

  void Execute(const Geometry& geometry, void* x, void* w, void* y, void* bias) {
    const Plan& plan = Find(geometry);
    const memory outer(plan.w, Cpu(), w);
    const memory inner = plan.reordered ? memory(plan.inner_w, Cpu(), inner_.AtLeast(plan.inner_w.get_size())) : outer;
    const bool weights_out = geometry.kind == kBackwardWeights;
    if (plan.reordered && !weights_out) plan.reorder.execute(stream_, {{DNNL_ARG_FROM, outer}, {DNNL_ARG_TO, inner}});
    const ArgumentNames& names = kArgumentNames[geometry.kind];
    std::unordered_map<int, memory> arguments{
        {names.x, memory(plan.x, Cpu(), x)},
        {names.w, inner},
        {names.y, memory(plan.y, Cpu(), y)},
        {DNNL_ARG_SCRATCHPAD, memory(plan.scratch, Cpu(), scratch_.AtLeast(plan.scratch.get_size()))}};
    if (bias != nullptr) arguments.emplace(DNNL_ARG_BIAS, memory(Bias(geometry), Cpu(), bias));
    plan.convolution.execute(stream_, arguments);
    if (plan.reordered && weights_out) plan.reorder.execute(stream_, {{DNNL_ARG_FROM, inner}, {DNNL_ARG_TO, outer}});
    stream_.wait();
  }

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::packaged_task<void()>> calls_;

  // Used by the one thread only.
  dnnl::stream stream_{Cpu()};
  std::unordered_map<std::vector<int64_t>, std::unique_ptr<const Plan>, HashKey> plans_;
  Buffer inner_, scratch_;
};

memory::data_type DataType(const ffi::AnyBuffer& buffer) {
  return buffer.element_type() == ffi::BF16 ? memory::data_type::bf16 : memory::data_type::f32;
}

template <typename Span>
Dims ToDims(const Span& span) {
  return Dims(span.begin(), span.end());
}

ffi::Error Call(const Geometry& geometry, void* x, void* w, void* y, void* bias) {
  try {
    Caller::Get().Convolve(geometry, x, w, y, bias);
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("oneDNN convolution: ") + error.what());
  }
  return ffi::Error::Success();
}

using Vector = ffi::Span<const int64_t>;

ffi::Error Convolve(ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> c, int64_t kind, Vector stride,
                    Vector dilation, Vector low, int64_t groups) {
  const ffi::AnyBuffer& r = *c;
  const ffi::AnyBuffer& x = kind == kBackwardData ? r : a;
  const ffi::AnyBuffer& w = kind == kBackwardWeights ? r : b;
  const ffi::AnyBuffer& y = kind == kForward ? r : kind == kBackwardData ? a : b;
  return Call({static_cast<Kind>(kind), DataType(x), groups, ToDims(x.dimensions()), ToDims(w.dimensions()),
               ToDims(y.dimensions()), ToDims(stride), ToDims(dilation), ToDims(low), std::nullopt},
              x.untyped_data(), w.untyped_data(), y.untyped_data(), nullptr);
}

ffi::Error ConvolveBiased(ffi::AnyBuffer x, ffi::AnyBuffer w, ffi::Buffer<ffi::F32> bias, ffi::Result<ffi::AnyBuffer> y,
                          Vector stride, Vector dilation, Vector low, int64_t groups, float leak) {
  return Call({kForward, DataType(x), groups, ToDims(x.dimensions()), ToDims(w.dimensions()), ToDims(y->dimensions()),
               ToDims(stride), ToDims(dilation), ToDims(low), leak},
              x.untyped_data(), w.untyped_data(), y->untyped_data(), bias.untyped_data());
}

}  // namespace

extern "C" int MedjaxThreads() { return Caller::Get().Threads(); }

// Whether oneDNN convolves bfloat16 on this processor, forward and in both gradients.
extern "C" bool MedjaxBfloat16() {
  for (const Kind kind : {kForward, kBackwardData, kBackwardWeights}) {
    try {
      Plan({kind, memory::data_type::bf16, 1, {1, 8, 8, 16}, {3, 3, 16, 16}, {1, 8, 8, 16}, {1, 1}, {1, 1}, {1, 1},
            std::nullopt});
    } catch (const dnnl::error&) {
      return false;
    }
  }
  return true;
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(MedjaxConvolve, Convolve,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("kind")
                                  .Attr<Vector>("stride")
                                  .Attr<Vector>("dilation")
                                  .Attr<Vector>("low")
                                  .Attr<int64_t>("groups"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(MedjaxConvolveBiased, ConvolveBiased,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<Vector>("stride")
                                  .Attr<Vector>("dilation")
                                  .Attr<Vector>("low")
                                  .Attr<int64_t>("groups")
                                  .Attr<float>("leak"));
