// Streams of the emulated card. What is queued runs when somebody waits for it, so as late as a
// card may run it: what needs an order that nobody asked for finds memory as it was before. Within
// a stream in order, on the thread that waits. Thread-safe.
#pragma once

#include <functional>
#include <vector>

namespace kvasir::emulation {

void* OpenStream();
void CloseStream(void* stream);  // runs what is queued

// On the null stream at once.
void QueueWork(void* stream, std::function<void()> work);
void RunQueued(void* stream);
// What freeing memory waits for.
void RunAllStreams();

// What is queued between these is kept instead; a fault if somebody waits for the stream meanwhile.
using RecordedWork = std::vector<std::function<void()>>;
void BeginRecording(void* stream);
RecordedWork EndRecording(void* stream);
bool IsRecording(void* stream);

void* OpenEvent();
void CloseEvent(void* event);
void RecordOn(void* event, void* stream);
void QueueWait(void* stream, void* event);
void RunUntil(void* event);
// Whether the work before the event has run. Nothing runs by being asked for.
bool HasRun(void* event);

}  // namespace kvasir::emulation
