// GPUs of host memory, to rehearse what runs between devices where there are none: the driver's memory, streams and events
// (-DDRIVER, libcuda.so.1) and NCCL (-DNCCL, libnccl.so.2). There are no kernels. Every stream is a thread that takes its
// time, so that work whose order nobody has seen to comes in a wrong one; fresh and freed memory holds what is no number.
// As on real devices, nobody takes memory of a device, or opens or ends a communicator there, while a copy from it to the
// host waits for its stream.
//
// Made by `stand_ins.py OUT rehearsal.cpp`; REHEARSAL_DEVICES says how many devices there are (4 without it). What
// `cargo test --features cuda --test gpu --no-run` made runs with LD_LIBRARY_PATH=OUT LD_PRELOAD=OUT/libcuda.so.1 and
// --test-threads=1: runs that share devices wait for each other.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

// Runs `task` when the stream has come there (of the driver; NCCL's part calls it).
extern "C" void rehearsal_enqueue(void *stream, std::function<void()> task);
// The device that the calling thread has made current, and that of a stream.
extern "C" int rehearsal_current();
extern "C" int rehearsal_device(void *stream);
// Whether a copy from the device to the host is under way; and waits until none is.
extern "C" bool rehearsal_is_copying(int device);
extern "C" void rehearsal_await_copies(int device);

#ifdef DRIVER

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

#endif
#ifdef NCCL

namespace {

enum { SUCCESS = 0, INVALID = 4, IN_PROGRESS = 7 };

// Of NCCL 2.28: what every version has, then more.
struct Config {
  size_t size;
  unsigned magic, version;
  int blocking;
};

struct Id {
  char bytes[128];
};

enum Kind { ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, BROADCAST, LETTER };

struct Call {
  Kind kind;
  size_t count;
  int type, by, root;
  bool operator==(const Call &other) const {
    return kind == other.kind && count == other.count && type == other.type && by == other.by && root == other.root;
  }
};

struct Round {
  Call call;
  std::vector<const char *> from;
  std::vector<char *> to;
  int arrived = 0, left = 0;
  bool done = false;
};

struct Group {
  std::mutex lock;
  std::condition_variable changed;
  int size, joined = 0, connected = 0;
  std::map<uint64_t, Round> rounds;
};

struct Comm {
  std::shared_ptr<Group> group;
  int rank, device;
  std::atomic<bool> aborted{false};
  std::atomic<int> busy{3};   // questions that are answered with "in progress"
  uint64_t calls = 0;
};

std::mutex groups_lock;
std::map<std::string, std::shared_ptr<Group>> groups;

size_t bytes_of(int type) {
  constexpr size_t BYTES[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  return BYTES[type];
}

float widen(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

uint16_t narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <typename T> void join(T *sum, const T *x, size_t count, int by) {
  for (size_t i = 0; i < count; i++) sum[i] = by == 0 ? sum[i] + x[i] : sum[i] > x[i] ? sum[i] : x[i];
}

void join_halves(uint16_t *sum, const uint16_t *x, size_t count, int by) {
  for (size_t i = 0; i < count; i++) {
    const float a = widen(sum[i]), b = widen(x[i]);
    sum[i] = narrow(by == 0 ? a + b : a > b ? a : b);
  }
}

std::vector<char> reduced(const Round &round, size_t count) {
  const size_t bytes = count * bytes_of(round.call.type);
  std::vector<char> sum(round.from[0], round.from[0] + bytes);
  for (size_t rank = 1; rank < round.from.size(); rank++) {
    const void *x = round.from[rank];
    switch (round.call.type) {
      case 7: join((float *)sum.data(), (const float *)x, count, round.call.by); break;
      case 8: join((double *)sum.data(), (const double *)x, count, round.call.by); break;
      case 9: join_halves((uint16_t *)sum.data(), (const uint16_t *)x, count, round.call.by); break;
      default: std::fprintf(stderr, "rehearsal: no sums of type %d\n", round.call.type), std::abort();
    }
  }
  return sum;
}

void carry_out(Round &round) {
  const size_t ranks = round.from.size(), piece = round.call.count * bytes_of(round.call.type);
  switch (round.call.kind) {
    case ALL_REDUCE: {
      const auto sum = reduced(round, round.call.count);
      for (char *to : round.to) std::memcpy(to, sum.data(), piece);
      break;
    }
    case REDUCE_SCATTER: {
      const auto sum = reduced(round, round.call.count * ranks);
      for (size_t rank = 0; rank < ranks; rank++) std::memcpy(round.to[rank], sum.data() + rank * piece, piece);
      break;
    }
    case ALL_GATHER: {
      std::vector<char> all;
      for (const char *from : round.from) all.insert(all.end(), from, from + piece);
      for (char *to : round.to) std::memcpy(to, all.data(), all.size());
      break;
    }
    case BROADCAST: {
      const std::vector<char> copy(round.from[round.call.root], round.from[round.call.root] + piece);
      for (char *to : round.to) std::memcpy(to, copy.data(), piece);
      break;
    }
    case LETTER: std::memcpy(round.to[1], round.from[0], piece); break;
  }
}

// Calls of the thread since ncclGroupStart: nothing of them begins before ncclGroupEnd.
thread_local bool together = false;
thread_local std::vector<std::function<void()>> begun;
thread_local std::vector<Comm *> asked;

// Every rank's stream waits until all have come.
int meet(Comm *comm, Call call, const void *from, void *to, void *stream) {
  if (rehearsal_current() != rehearsal_device(stream)) return INVALID;
  const bool first = std::find(asked.begin(), asked.end(), comm) == asked.end();
  if (first && comm->busy > 0) return INVALID;   // not asked until it was done
  comm->busy = 2;
  if (together) asked.push_back(comm);
  const uint64_t number = comm->calls++;
  if (number == 0) {   // NCCL makes connections at the first call
    const std::lock_guard<std::mutex> guard(groups_lock);
    comm->group->connected++;
  }
  const auto task = [=] {
    Group &group = *comm->group;
    std::unique_lock<std::mutex> guard(group.lock);
    Round &round = group.rounds[number];
    if (round.arrived == 0) {
      round.call = call;
      round.from.resize(size_t(group.size));
      round.to.resize(size_t(group.size));
      round.left = group.size;
    } else if (!(round.call == call)) {
      std::fprintf(stderr, "rehearsal: ranks call different things\n"), std::abort();
    }
    round.from[size_t(comm->rank)] = (const char *)from;
    round.to[size_t(comm->rank)] = (char *)to;
    if (++round.arrived == group.size) {
      carry_out(round);
      round.done = true;
      group.changed.notify_all();
    }
    group.changed.wait(guard, [&] { return round.done || comm->aborted; });
    if (round.done && --round.left == 0) group.rounds.erase(number);
  };
  if (!together) {
    rehearsal_enqueue(stream, task);
    return IN_PROGRESS;
  }
  begun.push_back([=] { rehearsal_enqueue(stream, task); });
  return SUCCESS;
}

} // namespace

extern "C" {

int ncclGetUniqueId(Id *id) {
  static std::atomic<uint64_t> next{1};
  std::memset(id, 0, sizeof *id);
  std::snprintf(id->bytes, sizeof id->bytes, "%llu", (unsigned long long)next++);
  return SUCCESS;
}
int ncclCommInitRankConfig(Comm **comm, int size, Id id, int rank, Config *config) {
  if (config->magic != 0xcafebeef || config->size != 80 || config->blocking != 0 || rank >= size) return INVALID;
  if (rehearsal_current() < 0) return INVALID;
  const std::lock_guard<std::mutex> guard(groups_lock);
  auto &group = groups[std::string(id.bytes, sizeof id.bytes)];
  if (!group) {
    group = std::make_shared<Group>();
    group->size = size;
  }
  if (group->size != size || group->joined == size) return INVALID;
  group->joined++;
  *comm = new Comm;
  (*comm)->group = group;
  (*comm)->rank = rank;
  (*comm)->device = rehearsal_current();
  return IN_PROGRESS;
}
int ncclCommGetAsyncError(Comm *comm, int *state) {
  const std::lock_guard<std::mutex> guard(groups_lock);
  *state = SUCCESS;
  const int came = comm->calls == 0 ? comm->group->joined : comm->group->connected;
  if (came < comm->group->size || (comm->calls < 2 && comm->busy > 0 && rehearsal_is_copying(comm->device)))
    *state = IN_PROGRESS;
  else if (comm->busy > 0 && --comm->busy > 0)
    *state = IN_PROGRESS;
  return SUCCESS;
}
int ncclCommAbort(Comm *comm) {
  {
    const std::lock_guard<std::mutex> guard(comm->group->lock);
    comm->aborted = true;
    comm->group->changed.notify_all();
  }
  rehearsal_await_copies(comm->device);
  return SUCCESS;
}
int ncclGroupStart() {
  if (together) return INVALID;
  together = true;
  return SUCCESS;
}
int ncclGroupEnd() {
  if (!together) return INVALID;
  for (const auto &begin : begun) begin();
  together = false;
  begun.clear();
  asked.clear();
  return IN_PROGRESS;
}
int ncclAllReduce(const void *from, void *to, size_t count, int type, int by, Comm *comm, void *stream) {
  return meet(comm, {ALL_REDUCE, count, type, by, 0}, from, to, stream);
}
int ncclAllGather(const void *from, void *to, size_t count, int type, Comm *comm, void *stream) {
  return meet(comm, {ALL_GATHER, count, type, 0, 0}, from, to, stream);
}
int ncclReduceScatter(const void *from, void *to, size_t count, int type, int by, Comm *comm, void *stream) {
  return meet(comm, {REDUCE_SCATTER, count, type, by, 0}, from, to, stream);
}
int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, Comm *comm, void *stream) {
  return meet(comm, {BROADCAST, count, type, 0, root}, from, to, stream);
}
// Communicators of two, the first sends: both ends of a letter meet as a call does.
int ncclSend(const void *from, size_t count, int type, int peer, Comm *comm, void *stream) {
  if (comm->group->size != 2 || comm->rank != 0 || peer != 1) return INVALID;
  return meet(comm, {LETTER, count, type, 0, 0}, from, nullptr, stream);
}
int ncclRecv(void *to, size_t count, int type, int peer, Comm *comm, void *stream) {
  if (comm->group->size != 2 || comm->rank != 1 || peer != 0) return INVALID;
  return meet(comm, {LETTER, count, type, 0, 0}, nullptr, to, stream);
}
const char *ncclGetErrorString(int code) { return code == INVALID ? "wrong use, says the rehearsal" : "an error of the rehearsal"; }
const char *ncclGetLastError(Comm *) { return ""; }

} // extern "C"

#endif
