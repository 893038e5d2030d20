// A queue of images, which worker threads of the session run in order.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "session/result.h"

namespace dovit::runtime {

// One enqueued image. It does not need the queue, so its result can be read after the session was freed.
class Job {
 public:
  explicit Job(std::function<Result()> work) : work_(std::move(work)) {}

  // Waits until it is done. Gives the result once, or throws what went wrong.
  Result wait();
  void finish() const noexcept;  // waits, and leaves the result
  bool done() const;

 private:
  friend class Queue;
  void run();

  std::function<Result()> work_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool done_ = false;
  std::optional<Result> result_;
  std::exception_ptr error_;
};

class Queue {
 public:
  explicit Queue(int workers) : workers_(workers) {}
  ~Queue();  // after what was enqueued is done

  void push(std::shared_ptr<Job> job);

 private:
  void work();

  const int workers_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Job>> jobs_;
  std::vector<std::thread> threads_;  // started by the first image
  bool closing_ = false;
};

}  // namespace dovit::runtime
