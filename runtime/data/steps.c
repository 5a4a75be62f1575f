/* The table of steps, their checks, and the loop that runs them. */
#include "steps.h"

#include <stdio.h>
#include <string.h>

#include "image.h"

#define SIZE {"size", true, true, 0, 1, 16384}
#define CHANCE {"p", false, false, 0.5, 0, 1}

const unic_step_form unic_step_forms[UNIC_STEP_KINDS] = {
  [UNIC_STEP_RANDOM_CROP] = {"random_crop", "a square piece at a random place", {SIZE}},
  [UNIC_STEP_CENTER_CROP] = {"center_crop", "the square piece in the middle", {SIZE}},
  [UNIC_STEP_RESIZE] = {"resize", "to a square, bilinear, without anti-aliasing", {SIZE}},
  [UNIC_STEP_ROTATE] = {"rotate", "counter-clockwise by an angle between low and high degrees, nearest pixel, 0 outside",
    {{"low", true, false, 0, -3600, 3600}, {"high", true, false, 0, -3600, 3600}}},
  [UNIC_STEP_AFFINE] = {"affine", "shift by whole pixels (up to +-translate of the size), scale by 1 +- scale, shear along x by +-shear degrees, nearest pixel, 0 outside",
    {{"translate", false, false, 0.1, 0, 1}, {"scale", false, false, 0.1, 0, 0.95}, {"shear", false, false, 10, 0, 80}}},
  [UNIC_STEP_JITTER] = {"jitter", "turn (normal, deviation in degrees), scale by 1 +- scale, shift by +-shift of the size, all in one, bilinear; outside 0, or the edge pixel with edge = true",
    {{"rotate", false, false, 3, 0, 180}, {"scale", false, false, 0.08, 0, 0.95}, {"shift", false, false, 0.06, 0, 1}, {"edge", false, true, 0, 0, 1}}},
  [UNIC_STEP_HORIZONTAL_FLIP] = {"horizontal_flip", "left and right exchanged with probability p (destroys laterality)", {CHANCE}},
  [UNIC_STEP_GREY] = {"grey", "three channels become .2989 R + .587 G + .114 B with probability p; a grey picture stays", {CHANCE}},
  [UNIC_STEP_AUTO_CONTRAST] = {"auto_contrast", "each channel stretched to 0..1 with probability p; a constant one stays", {CHANCE}},
  [UNIC_STEP_GAMMA] = {"gamma", "x^g with log g uniform between those of low and high", {{"low", false, false, 0.75, 0.01, 100}, {"high", false, false, 1.3333333333333333, 0.01, 100}}},
  [UNIC_STEP_NOISE] = {"noise", "grain of a standard deviation between 0 and amount, then clamped to 0..1", {{"amount", false, false, 0.03, 0, 1}}},
  [UNIC_STEP_NORMALIZE] = {"normalize", "(x - mean) / deviation", {{"mean", true, false, 0, -1e6, 1e6}, {"deviation", true, false, 0, 1e-6, 1e6}}},
  [UNIC_STEP_LUA] = {"lua", "a function of a Lua module, run in the worker's own Lua state", {{0}}},
};

static unic_status step_fail(const unic_augment *v, int at, const char *sentence) {
  return unic_fail("view '%s', step %d (%s): %s", v->name, at + 1, unic_step_forms[v->steps[at].kind].name, sentence);
}

unic_status unic_augment_check(unic_augment *view, const char *name, int32_t channels, int32_t height, int32_t width, int32_t replicate) {
  snprintf(view->name, sizeof view->name, "%s", name);
  view->key = unic_fnv(UNIC_FNV, name, strlen(name));
  view->channels = channels;
  view->height = height;
  view->width = width;
  int32_t h = height, w = width;
  view->room = (int64_t)channels * h * w;
  char text[300];
  for (int i = 0; i < view->count; i++) {
    const unic_step *s = &view->steps[i];
    const unic_step_form *form = &unic_step_forms[s->kind];
    for (int p = 0; p < UNIC_STEP_PARAMETERS && form->parameters[p].name; p++) {
      const unic_step_parameter *q = &form->parameters[p];
      const double x = s->values[p];
      if (!(x >= q->low && x <= q->high) || (q->whole && x != floor(x))) {
        snprintf(text, sizeof text, "'%s' is %.14g, expected %s from %.14g to %.14g", q->name, x, q->whole ? "a whole number" : "a number", q->low, q->high);
        return step_fail(view, i, text);
      }
    }
    switch (s->kind) {
    case UNIC_STEP_RANDOM_CROP:
    case UNIC_STEP_CENTER_CROP:
      if (s->values[0] > h || s->values[0] > w) {
        snprintf(text, sizeof text, "a piece of %d x %d pixels does not fit into a picture of %d x %d", (int)s->values[0], (int)s->values[0], (int)h, (int)w);
        return step_fail(view, i, text);
      }
      h = w = (int32_t)s->values[0];
      break;
    case UNIC_STEP_RESIZE: h = w = (int32_t)s->values[0]; break;
    case UNIC_STEP_ROTATE:
    case UNIC_STEP_GAMMA:
      if (s->values[0] > s->values[1]) {
        snprintf(text, sizeof text, "'low' is %.14g and 'high' is %.14g, expected low <= high", s->values[0], s->values[1]);
        return step_fail(view, i, text);
      }
      break;
    default: break;
    }
    if ((int64_t)channels * h * w > view->room) view->room = (int64_t)channels * h * w;
  }
  view->out_channels = replicate > channels ? replicate : channels;
  view->out_height = h;
  view->out_width = w;
  return UNIC_OK;
}

/* The picture lies in one half of the scratch; a step that cannot work in place writes the other half. */
typedef struct bench {
  unic_picture now;
  float *other;
} bench;

static void swap(bench *b, int32_t height, int32_t width) {
  float *done = b->other;
  b->other = b->now.pixels;
  b->now = (unic_picture){done, b->now.channels, height, width};
}

static void warp(bench *b, const double m[6], bool linear, bool edge) {
  const unic_picture p = b->now;
  const int64_t plane = (int64_t)p.height * p.width;
  for (int32_t c = 0; c < p.channels; c++) {
    if (linear) unic_image_warp_linear(p.pixels + c * plane, p.height, p.width, m, edge, b->other + c * plane);
    else unic_image_warp_nearest(p.pixels + c * plane, p.height, p.width, m, b->other + c * plane);
  }
  swap(b, p.height, p.width);
}

static void crop(bench *b, int32_t top, int32_t left, int32_t size) {
  const unic_picture p = b->now;
  for (int32_t c = 0; c < p.channels; c++)
    unic_image_crop(p.pixels + (int64_t)c * p.height * p.width, p.width, top, left, b->other + (int64_t)c * size * size, size, size);
  swap(b, size, size);
}

static void run_step(bench *b, const unic_step *s, unic_stream *random) {
  const unic_picture p = b->now;
  const int64_t plane = (int64_t)p.height * p.width, all = plane * p.channels;
  const double *v = s->values;
  double m[6];
  switch (s->kind) {
  case UNIC_STEP_RANDOM_CROP: {
    const int32_t size = (int32_t)v[0];
    const int32_t top = (int32_t)unic_stream_below(random, p.height - size + 1);
    crop(b, top, (int32_t)unic_stream_below(random, p.width - size + 1), size);
    break;
  }
  case UNIC_STEP_CENTER_CROP: {
    const int32_t size = (int32_t)v[0];
    crop(b, (p.height - size) / 2, (p.width - size) / 2, size);
    break;
  }
  case UNIC_STEP_RESIZE: {
    const int32_t size = (int32_t)v[0];
    if (size == p.height && size == p.width) break;
    for (int32_t c = 0; c < p.channels; c++) unic_image_resize(p.pixels + c * plane, p.height, p.width, b->other + (int64_t)c * size * size, size, size);
    swap(b, size, size);
    break;
  }
  case UNIC_STEP_ROTATE:
    unic_image_map(p.height, p.width, unic_stream_range(random, v[0], v[1]), 0, 1, 0, 0, m);
    warp(b, m, false, false);
    break;
  case UNIC_STEP_AFFINE: {
    const double dx = rint(unic_stream_range(random, -v[0] * p.width, v[0] * p.width));
    const double dy = rint(unic_stream_range(random, -v[0] * p.height, v[0] * p.height));
    const double scale = unic_stream_range(random, 1 - v[1], 1 + v[1]);
    unic_image_map(p.height, p.width, 0, unic_stream_range(random, -v[2], v[2]), scale, dx, dy, m);
    warp(b, m, false, false);
    break;
  }
  case UNIC_STEP_JITTER: {
    const double degrees = v[0] * unic_stream_normal(random), scale = unic_stream_range(random, 1 - v[1], 1 + v[1]);
    const double dx = unic_stream_range(random, -v[2] * p.width, v[2] * p.width), dy = unic_stream_range(random, -v[2] * p.height, v[2] * p.height);
    unic_image_map(p.height, p.width, degrees, 0, scale, dx, dy, m);
    warp(b, m, true, v[3] != 0);
    break;
  }
  case UNIC_STEP_HORIZONTAL_FLIP:
    if (unic_stream_chance(random, v[0]))
      for (int32_t c = 0; c < p.channels; c++) unic_image_flip(p.pixels + c * plane, p.height, p.width);
    break;
  case UNIC_STEP_GREY:
    if (unic_stream_chance(random, v[0]) && p.channels == 3) {
      float *r = p.pixels, *g = r + plane, *blue = g + plane;
      for (int64_t i = 0; i < plane; i++) r[i] = g[i] = blue[i] = 0.2989f * r[i] + 0.587f * g[i] + 0.114f * blue[i];
    }
    break;
  case UNIC_STEP_AUTO_CONTRAST:
    if (unic_stream_chance(random, v[0]))
      for (int32_t c = 0; c < p.channels; c++) unic_image_contrast(p.pixels + c * plane, plane);
    break;
  case UNIC_STEP_GAMMA: unic_image_gamma(p.pixels, all, (float)exp(unic_stream_range(random, log(v[0]), log(v[1])))); break;
  case UNIC_STEP_NOISE: {
    const double amount = v[0] * unic_stream_uniform(random);
    unic_image_noise(p.pixels, all, (float)amount, random);
    break;
  }
  case UNIC_STEP_NORMALIZE: unic_image_normalize(p.pixels, all, (float)v[0], (float)v[1]); break;
  default: break;
  }
}

unic_status unic_augment_run(const unic_augment *view, const uint8_t *bytes, const float *floats, uint64_t seed, uint64_t epoch, uint64_t item,
                          float *scratch, float *out, unic_step_call *call, void *context) {
  const int64_t count = (int64_t)view->channels * view->height * view->width;
  bench b = {{scratch, view->channels, view->height, view->width}, scratch + view->room};
  if (bytes) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) scratch[i] = (float)bytes[i] / 255.0f;
  } else {
    memcpy(scratch, floats, (size_t)count * sizeof *scratch);
  }
  for (int i = 0; i < view->count; i++) {
    unic_stream random = unic_stream_open(seed, epoch, item, view->key + (uint64_t)i);
    if (view->steps[i].kind == UNIC_STEP_LUA) {
      unic_status status = call(context, view->steps[i].user, &b.now, &random);
      if (status != UNIC_OK) return unic_fail_prefix(status, "view '%s', step %d (lua): ", view->name, i + 1);
    } else {
      run_step(&b, &view->steps[i], &random);
    }
  }
  const int64_t plane = (int64_t)view->out_height * view->out_width;
  for (int32_t c = 0; c < view->out_channels; c++)
    memcpy(out + c * plane, b.now.pixels + (c < view->channels ? c : 0) * plane, (size_t)plane * sizeof *out);
  return UNIC_OK;
}
