// GPUs of host memory, to rehearse what runs between devices where there are none: the driver's memory, streams and events
// (libcuda.so.1), with nccl.cpp beside it. There are no kernels. Every stream is a thread that takes its
// time, so that work whose order nobody has seen to comes in a wrong one; fresh and freed memory holds what is no number.
// As on real devices, nobody takes memory of a device, or opens or ends a communicator there, while a copy from it to the
// host waits for its stream.
//
// Made by `stand_ins.py OUT rehearsal`; REHEARSAL_DEVICES says how many devices there are (4 without it). What
// `cargo test --features cuda --test gpu --no-run` made runs with LD_LIBRARY_PATH=OUT LD_PRELOAD=OUT/libcuda.so.1 and
// --test-threads=1: runs that share devices wait for each other.
#include "streams.h"
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

namespace {

struct Stream {
  int device;
  std::mutex lock;
  std::condition_variable changed;
  std::deque<std::function<void()>> tasks;
  bool busy = false;
  explicit Stream(int device) : device(device) { std::thread(&Stream::work, this).detach(); }
  void work() {
    std::minstd_rand random(uint32_t(uintptr_t(this)));
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock<std::mutex> guard(lock);
        changed.wait(guard, [&] { return !tasks.empty(); });
        task = std::move(tasks.front());
        tasks.pop_front();
        busy = true;
      }
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
      task();
      task = nullptr;
      const std::lock_guard<std::mutex> guard(lock);
      busy = false;
      changed.notify_all();
    }
  }
  void put(std::function<void()> task) {
    const std::lock_guard<std::mutex> guard(lock);
    tasks.push_back(std::move(task));
    changed.notify_all();
  }
  void wait() {
    std::unique_lock<std::mutex> guard(lock);
    changed.wait(guard, [&] { return tasks.empty() && !busy; });
  }
};

struct Event {
  std::mutex lock;
  std::condition_variable changed;
  uint64_t recorded = 0, reached = 0;
};

using Shared = std::shared_ptr<Event>;

std::mutex streams_lock;
std::vector<Stream *> streams;
std::mutex copies_lock;
std::condition_variable copies_changed;
std::map<int, int> copies;   // under way, by device

void copying(int device, int more) {
  const std::lock_guard<std::mutex> guard(copies_lock);
  copies[device] += more;
  copies_changed.notify_all();
}

std::mutex sizes_lock;
std::map<uint64_t, size_t> sizes;
thread_local int current = -1;

Stream &stream_of(void *stream) { return *static_cast<Stream *>(stream); }

uint64_t allocate(size_t bytes) {
  void *at = std::malloc(bytes ? bytes : 1);
  std::memset(at, 0xff, bytes);
  const std::lock_guard<std::mutex> guard(sizes_lock);
  sizes[uint64_t(at)] = bytes;
  return uint64_t(at);
}

void release(uint64_t at) {
  const std::lock_guard<std::mutex> guard(sizes_lock);
  const auto found = sizes.find(at);
  if (found == sizes.end()) std::fprintf(stderr, "rehearsal: freed twice\n"), std::abort();
  std::memset((void *)at, 0xff, found->second);
  sizes.erase(found);
  std::free((void *)at);
}

} // namespace

extern "C" {

void rehearsal_enqueue(void *stream, std::function<void()> task) { stream_of(stream).put(std::move(task)); }
int rehearsal_current() { return current; }
int rehearsal_device(void *stream) { return stream_of(stream).device; }
bool rehearsal_is_copying(int device) {
  const std::lock_guard<std::mutex> guard(copies_lock);
  return copies[device] > 0;
}
void rehearsal_await_copies(int device) {
  std::unique_lock<std::mutex> guard(copies_lock);
  copies_changed.wait(guard, [&] { return copies[device] == 0; });
}

int cuInit(unsigned) { return 0; }
int cuDeviceGetCount(int *count) {
  const char *devices = std::getenv("REHEARSAL_DEVICES");
  *count = devices ? std::atoi(devices) : 4;
  return 0;
}
int cuDeviceGet(int *device, int ordinal) {
  int count;
  cuDeviceGetCount(&count);
  *device = ordinal;
  return ordinal < count ? 0 : 101;
}
int cuDeviceGetName(char *name, int length, int) {
  std::snprintf(name, size_t(length), "host memory");
  return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int) {
  *value = attribute == 115;   // memory pools
  return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
  *context = (void *)(uintptr_t(device) + 1);
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxSetCurrent(void *context) {
  current = int(uintptr_t(context)) - 1;
  return 0;
}
int cuCtxGetCurrent(void **context) {
  *context = (void *)uintptr_t(current + 1);
  return 0;
}
int cuDeviceGetDefaultMemPool(void **pool, int device) {
  *pool = (void *)(uintptr_t(device) + 1);
  return 0;
}
int cuMemPoolSetAttribute(void *, int, void *) { return 0; }
int cuMemPoolGetAttribute(void *, int, void *value) {
  *static_cast<uint64_t *>(value) = 0;
  return 0;
}
int cuStreamCreate(void **stream, unsigned) {
  Stream *made = new Stream(current);
  const std::lock_guard<std::mutex> guard(streams_lock);
  streams.push_back(made);
  *stream = made;
  return 0;
}
int cuCtxSynchronize() {
  std::vector<Stream *> all;
  {
    const std::lock_guard<std::mutex> guard(streams_lock);
    all = streams;
  }
  for (Stream *stream : all)
    if (stream->device == current) stream->wait();
  return 0;
}
int cuStreamCreateWithPriority(void **stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
int cuStreamDestroy_v2(void *) { return 0; }
int cuStreamSynchronize(void *stream) {
  stream_of(stream).wait();
  return 0;
}
int cuEventCreate(void **event, unsigned) {
  *event = new Shared(std::make_shared<Event>());
  return 0;
}
int cuEventDestroy_v2(void *event) {
  delete static_cast<Shared *>(event);
  return 0;
}
int cuEventRecord(void *event, void *stream) {
  const Shared shared = *static_cast<Shared *>(event);
  uint64_t number;
  {
    const std::lock_guard<std::mutex> guard(shared->lock);
    number = ++shared->recorded;
  }
  stream_of(stream).put([shared, number] {
    const std::lock_guard<std::mutex> guard(shared->lock);
    shared->reached = number;
    shared->changed.notify_all();
  });
  return 0;
}
int cuEventQuery(void *event) {
  const Shared &shared = *static_cast<Shared *>(event);
  const std::lock_guard<std::mutex> guard(shared->lock);
  return shared->reached == shared->recorded ? 0 : 600;
}
int cuEventSynchronize(void *event) {
  const Shared shared = *static_cast<Shared *>(event);
  std::unique_lock<std::mutex> guard(shared->lock);
  const uint64_t number = shared->recorded;
  shared->changed.wait(guard, [&] { return shared->reached >= number; });
  return 0;
}
int cuStreamWaitEvent(void *stream, void *event, unsigned) {
  const Shared shared = *static_cast<Shared *>(event);
  uint64_t number;
  {
    const std::lock_guard<std::mutex> guard(shared->lock);
    number = shared->recorded;
  }
  stream_of(stream).put([shared, number] {
    std::unique_lock<std::mutex> guard(shared->lock);
    shared->changed.wait(guard, [&] { return shared->reached >= number; });
  });
  return 0;
}
int cuMemAlloc_v2(uint64_t *at, size_t bytes) {
  rehearsal_await_copies(current);
  *at = allocate(bytes);
  return 0;
}
int cuMemAllocAsync(uint64_t *at, size_t bytes, void *) { return cuMemAlloc_v2(at, bytes); }
int cuMemFree_v2(uint64_t at) {
  rehearsal_await_copies(current);
  release(at);
  return 0;
}
int cuMemFreeAsync(uint64_t at, void *stream) {
  stream_of(stream).put([at] { release(at); });
  return 0;
}
int cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void *stream) {
  stream_of(stream).put([=] { std::memset((void *)at, value, bytes); });
  return 0;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
  const std::vector<char> copy((const char *)from, (const char *)from + bytes);
  stream_of(stream).put([=] { std::memcpy((void *)to, copy.data(), bytes); });
  return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
  copying(stream_of(stream).device, 1);
  stream_of(stream).put([=] { std::memcpy(to, (const void *)from, bytes); });
  stream_of(stream).wait();
  copying(stream_of(stream).device, -1);
  return 0;
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
  stream_of(stream).put([=] { std::memcpy((void *)to, (const void *)from, bytes); });
  return 0;
}
int cuGetErrorName(int, const char **text) {
  *text = "CUDA_ERROR_OF_THE_REHEARSAL";
  return 0;
}
int cuGetErrorString(int, const char **text) {
  *text = "the rehearsal has no such thing";
  return 0;
}

} // extern "C"
