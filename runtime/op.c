/* Signatures parsed into tables, and the helpers of shape rules. */
#include "op_info.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- the table */

enum { HASH = 1024 };   /* a power of two, several times the number of ops */
static unic_op_info **table;          /* by name */
static unic_op_info **order;          /* in the order of the files */
static int count;

static uint32_t hash_name(const char *name) {
  uint32_t h = 2166136261u;
  for (; *name; name++) h = (h ^ (uint8_t)*name) * 16777619u;
  return h;
}

static unic_op_info *lookup(const char *name) {
  for (uint32_t i = hash_name(name);; i++) {
    unic_op_info *info = table[i & (HASH - 1)];
    if (!info || strcmp(info->op->name, name) == 0) return info;
  }
}

unic_status unic_ops_load(void) {
  if (table) return UNIC_OK;
  count = 0;
  for (int f = 0; unic_op_files[f]; f++)
    for (int i = 0; unic_op_files[f][i]; i++) count++;
  unic_op_info **by_name = unic_new(HASH * sizeof *by_name), *all = unic_new((size_t)(count + 1) * sizeof *all);
  order = unic_new((size_t)(count + 1) * sizeof *order);
  if (!by_name || !order || !all) {
    unic_delete(by_name);
    unic_delete(all);
    unic_delete(order);
    return UNIC_MEMORY;
  }
  table = by_name;
  int n = 0;
  for (int f = 0; unic_op_files[f]; f++)
    for (int i = 0; unic_op_files[f][i]; i++) {
      unic_op_info *info = &all[n];
      info->op = unic_op_files[f][i];
      info->index = n;
      order[n++] = info;
      uint32_t at = hash_name(info->op->name);
      while (table[at & (HASH - 1)]) at++;
      table[at & (HASH - 1)] = info;
    }
  return UNIC_OK;
}

int unic_op_count(void) { return count; }
unic_op_info *unic_op_info_at(int i) { return order[i]; }

const unic_op *unic_op_find(const char *name) {
  if (!table) return NULL;
  unic_op_info *info = lookup(name);
  return info ? info->op : NULL;
}

unic_status unic_op_info_find(const char *name, unic_op_info **out) {
  UNIC_TRY(unic_ops_load());
  unic_op_info *info = lookup(name);
  if (!info) return unic_fail("[unic] there is no op '%s'", name);
  UNIC_TRY(unic_op_info_parse(info));
  *out = info;
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the parser */

typedef struct parser { const char *at; unic_op_info *info; } parser;

static void skip(parser *p) { while (isspace((unsigned char)*p->at)) p->at++; }

static bool eat(parser *p, const char *token) {
  skip(p);
  size_t n = strlen(token);
  if (strncmp(p->at, token, n) != 0) return false;
  p->at += n;
  return true;
}

static bool eat_word(parser *p, const char *word) {
  skip(p);
  size_t n = strlen(word);
  if (strncmp(p->at, word, n) != 0 || isalnum((unsigned char)p->at[n]) || p->at[n] == '_') return false;
  p->at += n;
  return true;
}

static bool name(parser *p, char *out, size_t bytes) {
  skip(p);
  size_t n = 0;
  while (isalnum((unsigned char)p->at[n]) || p->at[n] == '_') n++;
  if (n == 0 || n >= bytes) return false;
  memcpy(out, p->at, n);
  out[n] = 0;
  p->at += n;
  return true;
}

static unic_status bad(parser *p, const char *what) {
  return unic_fail("[%s] its signature cannot be read: %s near '%.30s'", p->info->op->name, what, p->at);
}

static unic_status parse_class(parser *p, unic_arg_info *a) {
  a->type_class = UNIC_CLASS_T;
  if (!eat(p, "<")) return UNIC_OK;
  char word[16];
  if (!name(p, word, sizeof word) || !eat(p, ">")) return bad(p, "a type class");
  if (strcmp(word, "wide") == 0) a->type_class = UNIC_CLASS_WIDE;
  else if (strcmp(word, "float") == 0) a->type_class = UNIC_CLASS_FLOAT;
  else if (strcmp(word, "int") == 0) a->type_class = UNIC_CLASS_INT;
  else if (strcmp(word, "any") == 0) a->type_class = UNIC_CLASS_ANY;
  else {
    unic_dtype d = unic_dtype_of_name(word);
    if (d == UNIC_DTYPES) return bad(p, "an unknown type class");
    a->type_class = (uint8_t)(UNIC_CLASS_EXACT + d);
  }
  return UNIC_OK;
}

static unic_status parse_dims(parser *p, unic_arg_info *a) {
  if (!eat(p, "[")) return UNIC_OK;
  a->dims_given = true;
  while (!eat(p, "]")) {
    if (a->ndims == UNIC_MAX_RANK) return bad(p, "too many dimensions");
    unic_dim_info *d = &a->dims[a->ndims++];
    skip(p);
    if (eat(p, "...")) d->rest = true;
    else if (isdigit((unsigned char)*p->at)) d->size = strtol(p->at, (char **)&p->at, 10);
    else if (!name(p, d->letter, sizeof d->letter)) return bad(p, "a dimension");
    eat(p, ",");
  }
  return UNIC_OK;
}

static unic_status parse_default(parser *p, unic_arg_info *a) {
  if (!eat(p, "=")) return UNIC_OK;
  a->has_default = true;
  skip(p);
  unic_value *v = &a->fallback;
  switch (a->kind) {
    case UNIC_KIND_BOOL:
      if (eat_word(p, "true")) v->integer = 1;
      else if (eat_word(p, "false")) v->integer = 0;
      else return bad(p, "a bool");
      return UNIC_OK;
    case UNIC_KIND_CHOICE: {
      char word[24];
      if (!name(p, word, sizeof word)) return bad(p, "a choice");
      for (int i = 0; i < a->nchoices; i++)
        if (strcmp(a->choices[i], word) == 0) { v->integer = i; return UNIC_OK; }
      return bad(p, "a default that is no choice");
    }
    case UNIC_KIND_DTYPE: {
      char word[24];
      if (!name(p, word, sizeof word) || unic_dtype_of_name(word) == UNIC_DTYPES) return bad(p, "a dtype");
      v->integer = unic_dtype_of_name(word);
      return UNIC_OK;
    }
    case UNIC_KIND_INTS:
      if (eat(p, "{")) {
        v->integer = 0;
        while (!eat(p, "}")) {
          char *end;
          skip(p);
          if (v->integer == UNIC_MAX_INTS) return bad(p, "too many ints");
          v->ints[v->integer++] = strtol(p->at, &end, 10);
          if (end == p->at) return bad(p, "an int");
          p->at = end;
          eat(p, ",");
        }
        return UNIC_OK;
      }
      __attribute__((fallthrough));   /* one int for all */
    default: {
      char *end;
      double x = strtod(p->at, &end);
      if (end == p->at) return bad(p, "a number");
      p->at = end;
      v->number = x;
      v->integer = (int64_t)x;
      if (a->kind == UNIC_KIND_INTS) {
        v->integer = a->fixed ? a->fixed : 1;
        for (int i = 0; i < v->integer; i++) v->ints[i] = (int64_t)x;
      }
      return UNIC_OK;
    }
  }
}

static unic_status parse_arg(parser *p, unic_arg_info *a) {
  if (!name(p, a->name, sizeof a->name)) return bad(p, "an argument name");
  a->mutated = eat(p, "!");
  if (!eat(p, ":")) return bad(p, "':' after the name");
  if (eat_word(p, "tensors")) { a->kind = UNIC_KIND_TENSORS; UNIC_TRY(parse_class(p, a)); }
  else if (eat_word(p, "tensor")) { a->kind = UNIC_KIND_TENSOR; UNIC_TRY(parse_class(p, a)); }
  else if (eat_word(p, "operand")) { a->kind = UNIC_KIND_OPERAND; UNIC_TRY(parse_class(p, a)); }
  else if (eat_word(p, "number")) a->kind = UNIC_KIND_NUMBER;
  else if (eat_word(p, "bool")) a->kind = UNIC_KIND_BOOL;
  else if (eat_word(p, "dtype")) a->kind = UNIC_KIND_DTYPE;
  else if (eat_word(p, "scalar")) { a->kind = UNIC_KIND_SCALAR; a->type_class = UNIC_CLASS_WIDE; }
  else if (eat_word(p, "rng")) { a->kind = UNIC_KIND_RNG; a->mutated = true; a->optional = true; a->type_class = (uint8_t)(UNIC_CLASS_EXACT + UNIC_I64); }
  else if (eat_word(p, "ints")) a->kind = UNIC_KIND_INTS;
  else if (eat_word(p, "int")) {
    a->kind = UNIC_KIND_INT;
    if (eat(p, "[")) {
      a->kind = UNIC_KIND_INTS;
      skip(p);
      a->fixed = (int)strtol(p->at, (char **)&p->at, 10);
      if (!eat(p, "]") || a->fixed < 1 || a->fixed > UNIC_MAX_INTS) return bad(p, "int[n]");
    }
  } else if (eat_word(p, "choice")) {
    a->kind = UNIC_KIND_CHOICE;
    if (!eat(p, "(")) return bad(p, "choice(a|b)");
    do {
      if (a->nchoices == UNIC_MAX_CHOICES || !name(p, a->choices[a->nchoices], sizeof a->choices[0])) return bad(p, "a choice");
      a->nchoices++;
    } while (eat(p, "|"));
    if (!eat(p, ")")) return bad(p, "choice(a|b)");
  } else return bad(p, "a kind of argument");
  if (eat(p, "?")) a->optional = true;
  UNIC_TRY(parse_dims(p, a));
  if (eat(p, "?")) a->optional = true;
  return parse_default(p, a);
}

static int arg_named(const unic_op_info *info, const char *text, size_t n) {
  for (int i = 0; i < info->nargs; i++)
    if (strlen(info->args[i].name) == n && strncmp(info->args[i].name, text, n) == 0) return i;
  return -1;
}

static int out_named(const unic_op_info *info, const char *text, size_t n) {
  for (int i = 0; i < info->nouts; i++)
    if (strlen(info->outs[i].name) == n && strncmp(info->outs[i].name, text, n) == 0) return i;
  return -1;
}

/* Walk "name:flag|flag name ..." and hand each to `note`. */
static unic_status each_word(parser *p, const char *list, unic_status (*note)(parser *, const char *, size_t, const char *, size_t)) {
  while (list && *list) {
    while (*list == ' ' || *list == ',') list++;
    if (!*list) break;
    size_t n = strcspn(list, ": ,");
    const char *flags = list[n] == ':' ? list + n + 1 : "";
    size_t m = list[n] == ':' ? strcspn(flags, " ,") : 0;
    UNIC_TRY(note(p, list, n, flags, m));
    list = list[n] == ':' ? flags + m : list + n;
  }
  return UNIC_OK;
}

static bool has_flag(const char *flags, size_t n, const char *flag) {
  size_t m = strlen(flag);
  for (size_t i = 0; i + m <= n; i++)
    if ((i == 0 || flags[i - 1] == '|') && strncmp(flags + i, flag, m) == 0 && (i + m == n || flags[i + m] == '|')) return true;
  return false;
}

static unic_status note_saved(parser *p, const char *word, size_t n, const char *flags, size_t m) {
  (void)flags; (void)m;
  int i = arg_named(p->info, word, n), j = out_named(p->info, word, n);
  if (i < 0 && j < 0) return unic_fail("[%s] its descriptor saves '%.*s', which is neither argument nor output", p->info->op->name, (int)n, word);
  if (j >= 0) p->info->outs[j].saved = true;
  else p->info->args[i].saved = true;
  return UNIC_OK;
}

static unic_status note_again(parser *p, const char *word, size_t n, const char *flags, size_t m) {
  (void)flags; (void)m;
  int i = arg_named(p->info, word, n);
  if (i < 0) return unic_fail("[%s] its descriptor remakes from '%.*s', which is no argument", p->info->op->name, (int)n, word);
  p->info->args[i].again = true;
  return UNIC_OK;
}

static unic_status note_grad(parser *p, const char *word, size_t n, const char *flags, size_t m) {
  int i = arg_named(p->info, word, n);
  if (i < 0) return unic_fail("[%s] its descriptor gives a gradient to '%.*s', which is no argument", p->info->op->name, (int)n, word);
  unic_arg_info *a = &p->info->args[i];
  a->grad = true;
  a->grad_wide = has_flag(flags, m, "wide");
  a->write_only = has_flag(flags, m, "write_only");
  a->sparse_rows = has_flag(flags, m, "rows");
  a->over_wide = has_flag(flags, m, "over_wide");
  a->over = a->over_wide || has_flag(flags, m, "over");
  p->info->differentiable = true;
  return UNIC_OK;
}

static unic_status note_layout(parser *p, const char *word, size_t n, const char *flags, size_t m) {
  int i = arg_named(p->info, word, n);
  if (i < 0) return unic_fail("[%s] its descriptor gives a layout to '%.*s', which is no argument", p->info->op->name, (int)n, word);
  unic_arg_info *a = &p->info->args[i];
  a->layouts = 0;
  if (has_flag(flags, m, "any")) a->layouts |= UNIC_ACCEPT_ANY;
  if (has_flag(flags, m, "dense")) a->layouts |= UNIC_ACCEPT_DENSE;
  if (has_flag(flags, m, "channels_last")) a->layouts |= UNIC_ACCEPT_CHANNELS_LAST;
  if (has_flag(flags, m, "blocked")) a->layouts |= UNIC_ACCEPT_BLOCKED;
  if (has_flag(flags, m, "contiguous")) a->layouts |= UNIC_ACCEPT_CONTIGUOUS;
  return UNIC_OK;
}

unic_status unic_op_info_parse(unic_op_info *info) {
  if (info->parsed) return UNIC_OK;
  parser p = {info->op->signature, info};
  skip(&p);
  while (!eat(&p, "->")) {
    skip(&p);
    if (!*p.at) break;
    if (info->nargs == UNIC_MAX_ARGS) return bad(&p, "too many arguments");
    info->args[info->nargs].layouts = UNIC_ACCEPT_CONTIGUOUS;
    UNIC_TRY(parse_arg(&p, &info->args[info->nargs++]));
    eat(&p, ",");
  }
  bool hidden = false;
  for (skip(&p); *p.at; skip(&p)) {
    if (eat(&p, "(")) { hidden = true; continue; }
    if (eat(&p, ")") || eat(&p, ",")) continue;
    if (info->nouts == UNIC_MAX_OUTS) return bad(&p, "too many outputs");
    unic_out_info *o = &info->outs[info->nouts++];
    if (!name(&p, o->name, sizeof o->name)) return bad(&p, "an output name");
    o->hidden = hidden;
    if (!hidden) info->visible = info->nouts;
  }
  UNIC_TRY(each_word(&p, info->op->saves, note_saved));
  UNIC_TRY(each_word(&p, info->op->again, note_again));
  UNIC_TRY(each_word(&p, info->op->grads, note_grad));
  UNIC_TRY(each_word(&p, info->op->layouts, note_layout));
  info->plain = true;
  for (int i = 0; i < info->nargs; i++) {
    unic_kind kind = info->args[i].kind;
    info->args[i].is_tensor = kind == UNIC_KIND_TENSOR || kind == UNIC_KIND_OPERAND || kind == UNIC_KIND_SCALAR || kind == UNIC_KIND_RNG;
    if (kind == UNIC_KIND_SCALAR || kind == UNIC_KIND_RNG) info->args[i].layouts = UNIC_ACCEPT_CONTIGUOUS;
    const unic_arg_info *a = &info->args[i];
    if (a->mutated) info->mutates = true;
    if (kind == UNIC_KIND_TENSORS) info->lists = true;
    if (kind == UNIC_KIND_TENSORS || kind == UNIC_KIND_SCALAR || kind == UNIC_KIND_RNG || a->mutated) info->plain = false;
    else if (a->is_tensor && (a->type_class != UNIC_CLASS_T || a->dims_given || !(a->layouts & (UNIC_ACCEPT_ANY | UNIC_ACCEPT_DENSE | UNIC_ACCEPT_CONTIGUOUS)))) info->plain = false;
  }
  info->parsed = true;
  return UNIC_OK;
}

/* ---------------------------------------------------------------- shape rules */

void unic_out(unic_call *c, int j, unic_dtype dtype, int ndim, const int64_t *shape) {
  unic_meta *m = &c->out[j];
  m->dtype = (uint8_t)dtype;
  m->ndim = (uint8_t)ndim;
  m->block = 0;
  m->layout = UNIC_CONTIGUOUS;
  m->offset = 0;
  for (int d = 0; d < ndim; d++) m->shape[d] = shape[d];
}

void unic_out_like(unic_call *c, int j, const unic_tensor *t) {
  unic_out(c, j, t->dtype, t->ndim, t->shape);
  if (t->block) {
    c->out[j].layout = UNIC_BLOCKED;
    c->out[j].block = t->block;
  } else if (!unic_tensor_is_contiguous(t) && unic_tensor_is_dense(t)) {
    c->out[j].layout = UNIC_LAYOUT_KEEP;
    for (int d = 0; d < t->ndim; d++) c->out[j].stride[d] = t->stride[d];
  }
}

bool unic_shape_broadcast(int *ndim, int64_t *shape, int more_ndim, const int64_t *more) {
  int n = *ndim > more_ndim ? *ndim : more_ndim;
  int64_t result[UNIC_MAX_RANK];
  for (int d = 0; d < n; d++) {
    int64_t a = d < n - *ndim ? 1 : shape[d - (n - *ndim)];
    int64_t b = d < n - more_ndim ? 1 : more[d - (n - more_ndim)];
    if (a != b && a != 1 && b != 1) return false;
    result[d] = a == 1 ? b : a;
  }
  *ndim = n;
  memcpy(shape, result, (size_t)n * sizeof *shape);
  return true;
}

unic_status unic_fail_arg(const unic_call *c, int arg, const char *format, ...) {
  char text[2048];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  unic_op_info *info = table ? lookup(c->op->name) : NULL;
  return unic_fail("[%s] argument '%s': %s", c->op->name, info && arg < info->nargs ? info->args[arg].name : "?", text);
}

unic_status unic_dim(const unic_call *c, int arg, int64_t dim, int ndim, int *out) {
  if (dim == 0) return unic_fail_arg(c, arg, "dimensions count from 1 (or from the end: -1), 0 was given");
  if (dim > ndim || dim < -ndim) return unic_fail_arg(c, arg, "dimension %lld was given, the tensor has %d (1..%d or -1..-%d)", (long long)dim, ndim, ndim, ndim);
  *out = (int)(dim > 0 ? dim - 1 : dim + ndim);
  return UNIC_OK;
}
