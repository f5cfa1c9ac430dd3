/* tinyseg from C and C++: point at anything in a camera frame and get its mask.
 *
 * Every function that can fail returns a tinyseg_status; tinyseg_last_error() then says, for the calling thread, what was
 * given, what was expected and what to do. No exception leaves the library. Buffers belong to the caller unless a function
 * says otherwise, and are used during the call only.
 *
 *   tinyseg_model *model;
 *   tinyseg_session *session;
 *   if (tinyseg_open("models/base", NULL, &model) != TINYSEG_OK) puts(tinyseg_last_error());
 *   tinyseg_session_new(model, &session);
 *   tinyseg_run(session, &frame, &prompt, 1, TINYSEG_ZOOM_OFF, &mask);
 *
 * A model may be used by several threads at the same time; a session, which holds one frame and its buffers, by one at a time.
 *
 * Coordinates are pixels of the frame. A point names a pixel: (0, 0) is the first pixel's centre. A box is its edges: the
 * whole frame is 0, 0, width, height. Licence: Apache-2.0.
 */
#ifndef TINYSEG_H
#define TINYSEG_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define TINYSEG_API __declspec(dllimport)
#elif defined(__GNUC__)
#define TINYSEG_API __attribute__((visibility("default")))
#else
#define TINYSEG_API
#endif

/* Of the functions and structures below: a library of the same number serves, whatever its version. */
#define TINYSEG_ABI 1

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tinyseg_status {
  TINYSEG_OK = 0,
  TINYSEG_INVALID_ARGUMENT = 1,      /* an argument cannot be used: NULL, a size, a number that is none */
  TINYSEG_MODEL_ERROR = 2,           /* the model is missing, damaged, or of another format */
  TINYSEG_ENGINE_MISSING = 3,        /* the engine's library is not installed or does not load */
  TINYSEG_ENGINE_ERROR = 4,          /* the engine failed */
  TINYSEG_PRECISION_UNAVAILABLE = 5, /* model, engine or processor do not offer the precision */
  TINYSEG_WRONG_DEVICE = 6,          /* the model folder was compiled for another device or engine */
  TINYSEG_NOT_READY = 7,             /* a call that needs another one first */
  TINYSEG_OUT_OF_MEMORY = 8,
  TINYSEG_INTERNAL = 9 /* a fault of this library: please report it */
} tinyseg_status;

/* A model opened on an engine. */
typedef struct tinyseg_model tinyseg_model;
/* One frame in flight: its features and every buffer that a step needs. */
typedef struct tinyseg_session tinyseg_session;

/* How to open a model. Start from {0}; size is sizeof(tinyseg_options), so that later versions can tell what is there. */
typedef struct tinyseg_options {
  size_t size;
  const char *engine;    /* "onnxruntime" (also where NULL), "openvino", or "tensorrt" where the library was built with it */
  const char *precision; /* "fp32" (also where NULL), "int8", "bf16" or "fp16", as engine and model offer */
  const char *library;   /* the engine's shared library; NULL looks for it (docs/c.md says where) */
  int threads;           /* of the processor; 0 for all that this process may use; of no use on a GPU */
} tinyseg_options;

typedef enum tinyseg_format {
  TINYSEG_GRAY = 0, /* 1 byte a pixel */
  TINYSEG_BGR = 1,  /* 3 */
  TINYSEG_RGB = 2,
  TINYSEG_BGRA = 3, /* 4, the last is ignored */
  TINYSEG_RGBA = 4
} tinyseg_format;

/* A frame of 8 bits a channel. */
typedef struct tinyseg_image {
  const uint8_t *data;
  int width, height;     /* 1 to 16384 pixels */
  ptrdiff_t row_stride;  /* bytes from a row to the next, 0 where rows follow each other; negative: bottom up */
  int format;            /* of tinyseg_format */
} tinyseg_image;

/* One question about a frame: points, a box, the logits of an earlier answer, or any mixture. */
typedef struct tinyseg_prompt {
  const double *points; /* count times x, y; 0 <= x <= width, 0 <= y <= height */
  const int *labels;    /* count times 1 (on the object) or 0 (off it) */
  size_t count;         /* up to 254 */
  const double *box;    /* x0, y0, x1, y1, cut to the frame; NULL for none */
  const float *hint;    /* rows * columns logits of an earlier answer for a frame of this size; NULL for none. The new answer's
                           logits may go to the same place. */
} tinyseg_prompt;

/* One answer. The caller sets pixels, and logits where they are wanted; the rest is written. */
typedef struct tinyseg_mask {
  uint8_t *pixels;       /* width * height bytes: 1 in the mask, 0 outside */
  float *logits;         /* rows * columns (tinyseg_grid) low-resolution logits, a hint for the next prompt; or NULL */
  float score;           /* predicted IoU, 0 to 1 */
  float stability;       /* how much of the mask survives when its threshold moves by 1 */
  int64_t area;          /* pixels */
  int box[4];            /* x0, y0, x1, y1, ends exclusive; zeros where the mask is empty */
  int zoomed;            /* 1 where the object was small and was looked at again, in the region zoom */
  int zoom[4];
} tinyseg_mask;

/* Whether an object that is small in the frame is encoded again, from a crop around it: better masks at twice the cost. (What
 * comes in is an int: an enum of a value that it does not have could not be refused.) */
typedef enum tinyseg_zoom { TINYSEG_ZOOM_OFF = 0, TINYSEG_ZOOM_AUTO = 1 } tinyseg_zoom;

/* "1.2.3", of the library. */
TINYSEG_API const char *tinyseg_version(void);
/* TINYSEG_ABI of the library. */
TINYSEG_API int tinyseg_abi(void);
/* What the last failed call of this thread had to say; "" if none failed. Valid until the next failure in this thread. */
TINYSEG_API const char *tinyseg_last_error(void);
/* "TINYSEG_MODEL_ERROR" and so on; never NULL. */
TINYSEG_API const char *tinyseg_status_name(int status);

/* Open a model folder (`tinyseg info` prints where the packaged one lies) on an engine. options NULL: the defaults. Graphs
 * are compiled when a size is first used, or by tinyseg_warm_up. */
TINYSEG_API tinyseg_status tinyseg_open(const char *folder, const tinyseg_options *options, tinyseg_model **model);
/* Sessions made from the model stay usable. NULL is allowed. */
TINYSEG_API void tinyseg_close(tinyseg_model *model);
/* What runs: model, engine, its version, precision and threads in one line. Valid as long as the model. */
TINYSEG_API const char *tinyseg_describe(const tinyseg_model *model);
/* The size of the low-resolution logits for frames of a size. */
TINYSEG_API tinyseg_status tinyseg_grid(const tinyseg_model *model, int width, int height, int *rows, int *columns);

TINYSEG_API tinyseg_status tinyseg_session_new(tinyseg_model *model, tinyseg_session **session);
TINYSEG_API void tinyseg_session_free(tinyseg_session *session);

/* Compile and allocate ahead what frames of a size with so many prompts of so many points (a box counts as two) need,
 * second looks included. */
TINYSEG_API tinyseg_status tinyseg_warm_up(tinyseg_session *session, int width, int height, size_t prompts, size_t points);

/* Encode a frame, to prompt it as often as you like. It is copied for second looks. */
TINYSEG_API tinyseg_status tinyseg_embed(tinyseg_session *session, const tinyseg_image *image);

/* Masks of the embedded frame for one prompt. count is 1 for the mask that answers an unambiguous prompt best, or 3 for three
 * readings of a click that may mean a part, an object or a group. */
TINYSEG_API tinyseg_status tinyseg_predict(tinyseg_session *session, const tinyseg_prompt *prompt, int zoom,
                                           tinyseg_mask *masks, size_t count);

/* One whole step, for loops: a frame and its prompts in, one mask each out. The frame is not copied, and tinyseg allocates
 * nothing once the session has seen a frame of this size with as many prompts and points (engines have memory of their own). */
TINYSEG_API tinyseg_status tinyseg_run(tinyseg_session *session, const tinyseg_image *image, const tinyseg_prompt *prompts,
                                       size_t count, int zoom, tinyseg_mask *masks);

#ifdef __cplusplus
}
#endif

#endif
