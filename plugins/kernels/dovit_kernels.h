/* The kernels of the token pass: one struct of arguments and one function for each, in plain C.
 *
 * This is the only place where they are written down: the kernels, libdovit_runtime and the TensorRT plugins include
 * it, and plugins/launch.py reads it to make the same structs for Python. So a field is one line, `type name;`, of the
 * types that are used here.
 *
 * Pointers are to device memory where nothing else is said. `size` is sizeof the struct that the caller was compiled
 * with; a function refuses any other. Each function queues its kernel on `stream`, a cudaStream_t, waits for nothing
 * and returns the cudaError_t of the launch.
 *
 * Letters: B images in a batch (`batch`), M tokens of an image before a decision (`count`), K after it (`capacity`),
 * P prefix tokens (`prefix`), N positions of the full sequence (`positions`), E channels, C classes. */
#ifndef DOVIT_KERNELS_H
#define DOVIT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What tokens and logits are made of: `type` below. */
enum { DOVIT_FLOAT32 = 0, DOVIT_FLOAT16 = 1, DOVIT_BFLOAT16 = 2 };

/* The largest class probability of each token. */
typedef struct dovit_confidence_args {
  size_t size;
  int32_t type;
  const void* logits; /* [B, C, M] */
  float* confidence;  /* [B, M] */
  int32_t batch;
  int32_t classes;
  int32_t count;
} dovit_confidence_args;
int dovit_confidence(const dovit_confidence_args* args, void* stream);

/* Decides with one capacity for the whole batch: the smallest that holds the most that any image keeps; with none
 * given, that number itself, and then every image of the batch must keep as many. */
typedef struct dovit_decide_args {
  size_t size;
  const float* confidence;   /* [B, M] */
  const float* threshold;    /* [1], on the device so that a captured graph reads it anew, as it does the capacities */
  const int64_t* capacities; /* [capacity_count], ascending */
  int32_t capacity_count;
  int32_t batch;
  int32_t count;
  int32_t* staying;  /* [B], scratch: how many stay by themselves */
  int32_t* keep;     /* packed: image b's kept tokens are keep[b*K ...), ascending; B*M numbers always suffice */
  int32_t* slots;    /* [B, M]: each token's place among its image's kept ones, -1 where it does not stay */
  int32_t* capacity; /* [1]: the chosen one */
  /* 0, or a cudaGraphConditionalHandle, which is set to the number of the chosen capacity, so that a SWITCH node of a
   * captured graph runs the body of that capacity. A library of a toolkit before CUDA 12.4 refuses it. */
  uint64_t switch_handle;
} dovit_decide_args;
int dovit_decide(const dovit_decide_args* args, void* stream);

/* The slots of dovit_decide for callers that have only the list of kept tokens. */
typedef struct dovit_slots_args {
  size_t size;
  const int32_t* keep; /* [B, K] */
  int32_t batch;
  int32_t count;
  int32_t capacity;
  int32_t* slots; /* [B, M] */
} dovit_slots_args;
int dovit_slots(const dovit_slots_args* args, void* stream);

/* Compacts the tokens that stay, and writes the others to `full`, into their sum and into the class token. Without
 * sums (`sum_before` null) the class token stays as it is.
 *
 * With `cell_side`, and then without sums, tokens are merged by cell: the grid of patches, `columns` wide, is cut into
 * G cells of cell_side×cell_side patches (smaller ones at its right and lower edge), and each cell has a merged token
 * among the last G of the prefix tokens: R becomes (n R + sum of the cell's tokens that stop) / (n + their number), n
 * being how many had stopped. cudaErrorInvalidValue where `columns` does not divide the positions, where there are more
 * cells than prefix tokens, or with sums. */
typedef struct dovit_gather_args {
  size_t size;
  int32_t type;
  const void* tokens;            /* [B, P+M, E] */
  const int32_t* index;          /* [B, M]: positions of the M tokens */
  const int32_t* slots;          /* [B, M], of dovit_decide or dovit_slots */
  void* kept;                    /* [B, P+K, E] */
  int32_t* kept_index;           /* [B, K] */
  void* full;                    /* [B, N, E], changed in place */
  const float* sum_before;       /* [B, E]: the sum of all that has stopped; null: nothing is summed or merged */
  float* sum_after;              /* [B, E], may be sum_before; null with it */
  const int64_t* stopped_before; /* [1]: how many tokens of each image that is */
  int64_t* stopped_after;        /* [1], another place: stopped_before + M - K */
  /* null, or [1]: the capacity that an earlier dovit_decide chose. `count` is then the most that M can be, and tensors
   * with M in their shape are as large as it is, not larger. */
  const int32_t* actual_count;
  int32_t batch;
  int32_t count;
  int32_t capacity;
  int32_t prefix;
  int32_t positions;
  int32_t channels;
  int32_t cell_side; /* 0: nothing is merged by cell */
  int32_t columns;   /* of the grid of patches; read only with cell_side */
  void* scratch;     /* dovit_gather_scratch_bytes; not used without sums */
} dovit_gather_args;
int dovit_gather(const dovit_gather_args* args, void* stream);
size_t dovit_gather_scratch_bytes(int32_t batch, int32_t count, int32_t channels);

/* Writes tokens to their positions. */
typedef struct dovit_reconstruct_args {
  size_t size;
  int32_t type;
  const void* tokens;   /* [B, P+M, E] */
  const int32_t* index; /* [B, M] */
  void* full;           /* [B, N, E] */
  int32_t batch;
  int32_t count;
  int32_t prefix;
  int32_t positions;
  int32_t channels;
} dovit_reconstruct_args;
int dovit_reconstruct(const dovit_reconstruct_args* args, void* stream);

/* The class of each pixel, from logits that are `scale` times smaller: uint8 for at most 256 classes, else int16. */
typedef struct dovit_labels_args {
  size_t size;
  int32_t type;
  const void* logits; /* [B, C, height, width] */
  void* labels;       /* [B, height*scale, width*scale] */
  int32_t batch;
  int32_t classes;
  int32_t height;
  int32_t width;
  int32_t scale;
} dovit_labels_args;
int dovit_labels(const dovit_labels_args* args, void* stream);

/* The same for labels of any size, of at most 65,535 rows. */
typedef struct dovit_resized_labels_args {
  size_t size;
  int32_t type;
  const void* logits; /* [B, C, height, width] */
  void* labels;       /* [B, out_height, out_width] */
  int32_t batch;
  int32_t classes;
  int32_t height;
  int32_t width;
  int32_t out_height;
  int32_t out_width;
} dovit_resized_labels_args;
int dovit_resized_labels(const dovit_resized_labels_args* args, void* stream);

/* (x - mean) / deviation of images. */
typedef struct dovit_normalise_args {
  size_t size;
  int32_t type;
  const uint8_t* images; /* [B, height, width, 3] */
  void* out;             /* [B, 3, height, width] */
  int32_t batch;
  int32_t height;
  int32_t width;
  const float* mean;      /* [3], on the host, as the deviation is */
  const float* deviation; /* [3] */
} dovit_normalise_args;
int dovit_normalise(const dovit_normalise_args* args, void* stream);

/* Resizes one image as Pillow does it bilinearly. */
typedef struct dovit_resize_args {
  size_t size;
  const uint8_t* image; /* [height, width, 3] */
  int32_t height;
  int32_t width;
  uint8_t* out; /* [out_height, out_width, 3] */
  int32_t out_height;
  int32_t out_width;
  const int32_t* across; /* the table of dovit_resize_taps of this direction, with across_width weights a pixel */
  int32_t across_width;
  const int32_t* down;
  int32_t down_width;
  uint8_t* scratch; /* 3*max(height*out_width, out_height*width) bytes */
} dovit_resize_args;
int dovit_resize(const dovit_resize_args* args, void* stream);

/* The weights of one direction for dovit_resize, on the host: first, count and weights, one after the other. Returns
 * how many numbers there are; `taps` may be null to learn that. */
int dovit_resize_taps(int32_t source, int32_t target, int32_t* taps, int32_t* width);

/* What a cudaError_t means. */
const char* dovit_error_string(int status);

#ifdef __cplusplus
}
#endif

#endif
