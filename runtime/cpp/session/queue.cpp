#include "session/queue.h"

#include "errors.h"

namespace dovit::runtime {

Result Job::wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return done_; });
  if (error_) std::rethrow_exception(error_);
  if (!result_) throw UsageError("this image's result was taken before: wait once for each enqueue");
  Result result = std::move(*result_);
  result_.reset();
  return result;
}

void Job::finish() const noexcept {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return done_; });
}

bool Job::done() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return done_;
}

void Job::run() {
  std::optional<Result> result;
  std::exception_ptr error;
  try {
    result = work_();
  } catch (...) {
    error = std::current_exception();
  }
  work_ = nullptr;  // the converted pixels are not needed any more
  const std::lock_guard<std::mutex> lock(mutex_);
  result_ = std::move(result);
  error_ = error;
  done_ = true;
  changed_.notify_all();
}

Queue::~Queue() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Queue::push(std::shared_ptr<Job> job) {
  const std::lock_guard<std::mutex> lock(mutex_);
  while (static_cast<int>(threads_.size()) < workers_) threads_.emplace_back([this] { work(); });
  jobs_.push_back(std::move(job));
  changed_.notify_one();
}

void Queue::work() {
  for (;;) {
    std::shared_ptr<Job> job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return closing_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job->run();
  }
}

}  // namespace dovit::runtime
