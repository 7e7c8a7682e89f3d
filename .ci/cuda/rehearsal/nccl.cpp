// NCCL between the devices of driver.cpp (libnccl.so.2): calls meet in the streams, whoever comes last carries them out.
#include "streams.h"
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

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
  // Which of how many calls that begin together: NCCL plans them as one, so that they must be alike on all ranks.
  size_t place = 0, among = 1;
  bool operator==(const Call &other) const {
    return kind == other.kind && count == other.count && type == other.type && by == other.by && root == other.root &&
           place == other.place && among == other.among;
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
thread_local std::vector<std::function<void(size_t among)>> begun;
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
  const auto arrive = [=](Call call) {
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
    rehearsal_enqueue(stream, [=] { arrive(call); });
    return IN_PROGRESS;
  }
  call.place = begun.size();
  begun.push_back([=](size_t among) mutable {
    call.among = among;
    rehearsal_enqueue(stream, [=] { arrive(call); });
  });
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
  for (auto &begin : begun) begin(begun.size());
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
