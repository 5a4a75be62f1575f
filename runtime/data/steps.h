/* Augmentation as data: a view is a list of steps, each a kind and numbers, checked once and then run on any thread. */
#ifndef UNIC_DATA_STEPS_H
#define UNIC_DATA_STEPS_H

#include <stdbool.h>
#include <stdint.h>

#include "../status.h"
#include "stream.h"

enum { UNIC_STEP_PARAMETERS = 4, UNIC_STEPS = 32 };   /* numbers of a step; steps of a view */

typedef enum unic_step_kind {
  UNIC_STEP_RANDOM_CROP, UNIC_STEP_CENTER_CROP, UNIC_STEP_RESIZE, UNIC_STEP_ROTATE, UNIC_STEP_AFFINE, UNIC_STEP_JITTER,
  UNIC_STEP_HORIZONTAL_FLIP, UNIC_STEP_GREY, UNIC_STEP_AUTO_CONTRAST, UNIC_STEP_GAMMA, UNIC_STEP_NOISE, UNIC_STEP_NORMALIZE,
  UNIC_STEP_LUA, UNIC_STEP_KINDS
} unic_step_kind;

typedef struct unic_step_parameter {
  const char *name;
  bool required, whole;
  double fallback, low, high;   /* low and high are allowed */
} unic_step_parameter;

/* What a kind is called and takes; unused parameters have no name. */
typedef struct unic_step_form {
  const char *name, *help;
  unic_step_parameter parameters[UNIC_STEP_PARAMETERS];
} unic_step_form;
extern const unic_step_form unic_step_forms[UNIC_STEP_KINDS];

typedef struct unic_step {
  unic_step_kind kind;
  int user;                               /* UNIC_STEP_LUA: which function */
  double values[UNIC_STEP_PARAMETERS];
} unic_step;

typedef struct unic_augment {
  char name[64];
  uint64_t key;                           /* of its random streams: its name's hash, so that another view beside it changes nothing */
  int count;
  unic_step steps[UNIC_STEPS];
  int32_t channels;                       /* of the input: 1 or 3 */
  int32_t height, width;                  /* of the input */
  int32_t out_channels, out_height, out_width;
  int64_t room;                           /* floats of the largest picture on the way */
} unic_augment;

/* A picture on its way through the steps; pixels are [channels][height][width]. */
typedef struct unic_picture {
  float *pixels;
  int32_t channels, height, width;
} unic_picture;

/* Runs a step that is a Lua function, in place; registered by whoever has a Lua state. */
typedef unic_status unic_step_call(void *context, int user, const unic_picture *picture, unic_stream *random);

/* Name the view, and check its steps against an input of channels x height x width. replicate: 3 = a grey picture comes out as three equal
 * channels, 0 or 1 = as it is. Sentences begin with "view 'name', step 2 (rotate): ". */
unic_status unic_augment_check(unic_augment *view, const char *name, int32_t channels, int32_t height, int32_t width, int32_t replicate);

/* Run the view for one item. Input: bytes (0..255 become 0..1) or, if bytes is NULL, floats that are taken as they are. scratch: room for
 * 2 * view->room floats. out: [out_channels][out_height][out_width]. */
unic_status unic_augment_run(const unic_augment *view, const uint8_t *bytes, const float *floats, uint64_t seed, uint64_t epoch, uint64_t item,
                          float *scratch, float *out, unic_step_call *call, void *context);

#endif
