// What NCCL's part of the rehearsal needs of the driver's.
#pragma once
#include <functional>

// Runs `task` when the stream has come there (of the driver; NCCL's part calls it).
extern "C" void rehearsal_enqueue(void *stream, std::function<void()> task);
// The device that the calling thread has made current, and that of a stream.
extern "C" int rehearsal_current();
extern "C" int rehearsal_device(void *stream);
// Whether a copy from the device to the host is under way; and waits until none is.
extern "C" bool rehearsal_is_copying(int device);
extern "C" void rehearsal_await_copies(int device);
