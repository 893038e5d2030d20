/* dovit in C: segments images with a bundle that dovit-export made.
 *
 *     dovit_session* session = NULL;
 *     dovit_result* result = NULL;
 *     dovit_image image = {pixels, width, height, 0, DOVIT_RGB, DOVIT_HOST};
 *     if (dovit_session_load("engines/", NULL, &session) != DOVIT_OK ||
 *         dovit_session_run(session, &image, NULL, &result) != DOVIT_OK) {
 *       fprintf(stderr, "%s\n", dovit_last_error());
 *     } else {
 *       dovit_labels labels = dovit_result_labels(result);
 *       use(labels.data, labels.width, labels.height);
 *     }
 *     dovit_result_free(result);
 *     dovit_session_free(session);
 *
 * Ownership. An object that a function returns through `**` belongs to the caller, who frees it with its `_free`
 * function; these accept NULL. Pointers inside a result live as long as the result, those inside a dovit_info as long
 * as the session. A result needs no session, and an enqueued job neither. What the caller passes in stays the caller's;
 * it is read during the call alone, but for an enqueued image's pixels and its own memory for labels, which must stay
 * until dovit_job_wait() returns.
 *
 * Threads. Any number of threads may use one session at a time. A result or a job belongs to one thread at a time. A
 * session is freed when no other thread is in a call with it; dovit_session_free() waits for what was enqueued.
 *
 * Errors. Functions return a dovit_status; other than DOVIT_OK, outputs are NULL and dovit_last_error() has one
 * sentence that says what is wrong and how to fix it. Nothing is thrown, and there is no state outside the handles but
 * that sentence, which each thread has for itself.
 *
 * Output. What is no error but not what one would expect is a line on standard error that begins with "dovit: ". There
 * are four. At loading, which options are for another backend and have no effect: provider, threads, low_memory,
 * skip_accuracy_check and cache with plans, graph on a CPU. The others are on a GPU: DOVIT_DEFAULT_GRAPH means
 * DOVIT_SEGMENTED, because a plan cannot be part of a graph of the whole image (at loading); TensorRT-RTX takes no
 * cache of compiled kernels (once); the file of that cache cannot be written (at loading). Nothing else is printed by
 * this library; those that it opens may print errors of their own.
 *
 * Structs that begin with `size` may grow at their end: start them with their _INIT, and set what differs. In such a
 * struct, 0 and NULL mean the default. A program that was compiled with an older dovit.h of the same ABI version runs
 * as it is: options that its structs lack have their defaults, and of a dovit_info as much is written as it has. A
 * larger struct is refused (DOVIT_USAGE): the program was compiled with a newer dovit.h than the library's.
 */
#ifndef DOVIT_H
#define DOVIT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define DOVIT_API __attribute__((visibility("default")))
#else
#define DOVIT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Of this header. A library works with the headers whose number is its own, up to the one that it was built with:
 * dovit_check_abi(). */
#define DOVIT_ABI_VERSION 3

typedef enum dovit_status {
  DOVIT_OK = 0,
  DOVIT_ERROR = 1,      /* something failed: a file, the bundle, the backend, memory */
  DOVIT_USAGE = 2,      /* an argument is invalid */
  DOVIT_UNSUPPORTED = 3 /* a valid request that this build or backend cannot do, such as device memory on a CPU */
} dovit_status;

typedef enum dovit_format { DOVIT_RGB = 0, DOVIT_BGR = 1, DOVIT_RGBA = 2, DOVIT_BGRA = 3, DOVIT_GREY = 4 } dovit_format;
/* Device memory is that of the session's GPU, in its primary context, as the CUDA runtime allocates it. */
typedef enum dovit_memory { DOVIT_HOST = 0, DOVIT_DEVICE = 1 } dovit_memory;

/* How an image of another size is brought to the bundle's: resized, or seen through mmsegmentation's sliding window. */
typedef enum dovit_mode { DOVIT_DEFAULT_MODE = 0, DOVIT_WHOLE = 1, DOVIT_SLIDE = 2 } dovit_mode;

/* How mode whole resizes an image: to the bundle's size, or with its aspect ratio until it fits inside, padded with the
 * mean colour at the bottom and the right. */
typedef enum dovit_resize { DOVIT_DEFAULT_RESIZE = 0, DOVIT_STRETCH = 1, DOVIT_KEEP_RATIO = 2 } dovit_resize;

/* Keep what the thresholds say, or fill up to one of the bundle's capacities, or (on a CPU) to a multiple of 16. */
typedef enum dovit_schedule {
  DOVIT_DEFAULT_SCHEDULE = 0,
  DOVIT_EXACT = 1,
  DOVIT_BUCKETED = 2,
  DOVIT_ROUNDED = 3
} dovit_schedule;

/* On a GPU: an image as one CUDA graph, or a graph for each part between two decisions, and a wait at each. */
typedef enum dovit_graph { DOVIT_DEFAULT_GRAPH = 0, DOVIT_WHOLE_IMAGE = 1, DOVIT_SEGMENTED = 2 } dovit_graph;

typedef struct dovit_session dovit_session;
typedef struct dovit_result dovit_result;
typedef struct dovit_job dovit_job;

/* ---- version ---- */

DOVIT_API const char* dovit_version(void); /* such as 0.1.0 */
DOVIT_API int dovit_abi_version(void);

/* Fails with a sentence where a program was compiled for another library: dovit_check_abi(DOVIT_ABI_VERSION). */
DOVIT_API dovit_status dovit_check_abi(int header);

/* Of the last call of this thread that failed; "" before one did. Valid until this thread's next call that fails. */
DOVIT_API const char* dovit_last_error(void);

/* ---- loading ---- */

typedef struct dovit_load_options {
  size_t size;
  const char* backend;      /* "auto", "onnxruntime", "tensorrt", "tensorrt-rtx"; NULL: auto */
  const char* device;       /* "cpu", or "cuda:0" for the TensorRT backends; NULL: what the backend runs on */
  const char* onnxruntime;  /* path of libonnxruntime.so; NULL: where the system finds libonnxruntime.so.1 */
  const char* tensorrt;     /* path of libnvinfer.so or libtensorrt_rtx.so; NULL: where the system finds it */
  const char* plugins;      /* path of libdovit_plugins.so, the kernels; NULL: beside this library, or the system's */
  const char* precision;    /* of the plans: "fp32", "fp16", "bf16"; NULL: of those built last. On a CPU: "fp32"; "bf16"
                             * with OpenVINO, in which confidences and logits stay float32. NULL: fp32 */
  int graph;                /* dovit_graph; default: whole image where the driver has CUDA 12.8 */
  int threads;              /* of the CPU, for each image; 0: all that the process may use */
  int low_memory;           /* 1: no repacked copy of the weights, which is somewhat slower */
  int workers;              /* images that run at a time, each with memory of its own on a GPU; 0: one */
  int schedule;             /* dovit_schedule; default: on a CPU exact, or rounded in bf16; on a GPU bucketed */
  const double* thresholds; /* above which a token stops: one for all or one each; NULL: the bundle's */
  size_t threshold_count;
  const char* provider; /* on a CPU: "cpu" (ONNX Runtime's own), "openvino", or "auto": the faster of those that are
                         * found, as measured when the bundle was first loaded in Python; NULL: auto */
  const char* openvino; /* path of libopenvino_c.so; NULL: where the system finds it */
  const char* cache; /* folder in which OpenVINO keeps what it compiled, for the next process; NULL: none. Whoever can
                      * write there decides what this process runs */
  int skip_accuracy_check; /* 1: bf16 on a CPU is taken without the record of what it costs this bundle there, which
                            * loading the bundle in Python with precision="bf16" makes; and int8 with OpenVINO on an x86
                            * CPU without VNNI, where its sums saturate */
} dovit_load_options;

#define DOVIT_LOAD_OPTIONS_INIT                                                                  \
  {sizeof(dovit_load_options), NULL, NULL, NULL, NULL, NULL, NULL, DOVIT_DEFAULT_GRAPH, 0, 0, 0, \
   DOVIT_DEFAULT_SCHEDULE,     NULL, 0,    NULL, NULL, NULL, 0}

/* Opens the bundle in the folder `path`: its schema, sizes and hashes are checked before anything in it is used.
 * `options` may be NULL. */
DOVIT_API dovit_status dovit_session_load(const char* path, const dovit_load_options* options, dovit_session** session);
DOVIT_API void dovit_session_free(dovit_session* session);

/* What a session is made of. */
typedef struct dovit_info {
  size_t size;
  const char* architecture;
  const char* backend;
  int height, width; /* of the model's images; others are resized, or seen through windows of this size */
  int grid_height, grid_width;
  int classes, decisions;
  int label_bytes;          /* 1 (uint8), or 2 (int16) with more than 256 classes */
  const double* thresholds; /* [decisions], those in use */
  int mode, resize;         /* dovit_mode and dovit_resize of images that name none */
  const char* provider;     /* what runs the steps on a CPU, "cpu" or "openvino"; NULL with plans */
  const char* precision;    /* in which it computes, "fp32" or "bf16"; NULL with plans */
} dovit_info;

#define DOVIT_INFO_INIT \
  {sizeof(dovit_info), NULL, NULL, 0, 0, 0, 0, 0, 0, 0, NULL, DOVIT_DEFAULT_MODE, DOVIT_DEFAULT_RESIZE, NULL, NULL}

DOVIT_API dovit_status dovit_session_info(const dovit_session* session, dovit_info* info);

/* A class's name, or NULL where the bundle has none; and its colour, false (0) where the bundle has none. */
DOVIT_API const char* dovit_session_class_name(const dovit_session* session, int number);
DOVIT_API int dovit_session_class_colour(const dovit_session* session, int number, uint8_t rgb[3]);

/* ---- running ---- */

typedef struct dovit_image {
  const void* data; /* uint8, rows from the top */
  int width, height;
  size_t stride; /* bytes from one row to the next; 0: no gaps */
  int format;    /* dovit_format */
  int memory;    /* dovit_memory */
} dovit_image;

typedef struct dovit_run_options {
  size_t size;
  int mode;                 /* dovit_mode; default: the bundle's */
  int schedule;             /* dovit_schedule; default: the session's */
  const double* thresholds; /* as for loading; NULL: the session's */
  size_t threshold_count;
  const int64_t* counts; /* tokens to keep after each decision, the least confident; NULL: by thresholds */
  size_t count_count;
  int return_logits;    /* 1: dovit_result_logits() */
  void* labels;         /* memory of the caller's for the labels, dovit_info.label_bytes each; NULL: the result's */
  size_t labels_stride; /* bytes from one row to the next; 0: no gaps */
  int labels_memory;    /* dovit_memory: where `labels` lies */
  void* stream; /* a cudaStream_t of the caller's: what it holds is over before device memory is used; NULL: default */
  int resize;   /* dovit_resize, of mode whole; default: the bundle's */
} dovit_run_options;

#define DOVIT_RUN_OPTIONS_INIT \
  {sizeof(dovit_run_options),  \
   DOVIT_DEFAULT_MODE,         \
   DOVIT_DEFAULT_SCHEDULE,     \
   NULL,                       \
   0,                          \
   NULL,                       \
   0,                          \
   0,                          \
   NULL,                       \
   0,                          \
   DOVIT_HOST,                 \
   NULL,                       \
   DOVIT_DEFAULT_RESIZE}

/* Segments one image of any size. `options` may be NULL. */
DOVIT_API dovit_status dovit_session_run(dovit_session* session, const dovit_image* image,
                                         const dovit_run_options* options, dovit_result** result);

/* Puts an image into the session's queue and returns. Invalid arguments fail immediately, other errors are returned by
 * dovit_job_wait(). */
DOVIT_API dovit_status dovit_session_enqueue(dovit_session* session, const dovit_image* image,
                                             const dovit_run_options* options, dovit_job** job);

/* Waits for an enqueued image; once for each. */
DOVIT_API dovit_status dovit_job_wait(dovit_job* job, dovit_result** result);
DOVIT_API int dovit_job_done(const dovit_job* job); /* 1 if dovit_job_wait() would return at once */
DOVIT_API void dovit_job_free(dovit_job* job);      /* waits, for the image's memory is in use until then */

/* ---- results ---- */

typedef struct dovit_labels {
  const void* data; /* [height, width], the class of each pixel; NULL where they went to dovit_run_options.labels */
  int width, height;
  int label_bytes;
} dovit_labels;

DOVIT_API dovit_labels dovit_result_labels(const dovit_result* result);

/* Copies the labels to memory of the caller's (dovit_memory); stride in bytes, 0: no gaps. */
DOVIT_API dovit_status dovit_result_copy_labels(const dovit_result* result, void* to, size_t stride, int memory,
                                                void* stream);

/* Tokens kept after each decision, `*count` of them; in slide mode summed over the windows. */
DOVIT_API const int64_t* dovit_result_kept(const dovit_result* result, size_t* count);
DOVIT_API int64_t dovit_result_tokens(const dovit_result* result); /* of the image; slide: times the windows */

/* shape: [windows, decisions, grid_height, grid_width]; one window but in slide mode. Keep maps are 0 or 1; confidence
 * maps are NaN where a token had already stopped. */
DOVIT_API const uint8_t* dovit_result_keep_maps(const dovit_result* result, int64_t shape[4]);
DOVIT_API const float* dovit_result_confidence_maps(const dovit_result* result, int64_t shape[4]);

/* The part of the bundle's size that the image fills, from the top left: all of it but with DOVIT_KEEP_RATIO, where the
 * rest is padding. Maps and logits are those of the whole. In slide mode the size of a window. */
DOVIT_API void dovit_result_filled(const dovit_result* result, int* height, int* width);

/* The top left corner of each window, y and x in turn, in the image, or in slide mode in the enlarged one. */
DOVIT_API const int* dovit_result_windows(const dovit_result* result, size_t* count);

/* shape: [classes, h, w], at the decoder's own resolution; slide: at the image's. NULL without return_logits. */
DOVIT_API const float* dovit_result_logits(const dovit_result* result, int64_t shape[3]);

DOVIT_API void dovit_result_free(dovit_result* result);

#ifdef __cplusplus
}
#endif

#endif
