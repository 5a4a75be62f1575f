/* Columns, splits, faults, hashes, and the cache of pictures. A little over 500 lines: all of them work on one structure. */
#define _GNU_SOURCE
#include "dataset.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "../files/image_file.h"

/* Text that is copied in lies in blocks that are never moved. */
typedef struct block {
  struct block *next;
  size_t used, room;
  char text[];
} block;

typedef struct item {
  const char *cells[UNIC_COLUMN_SPLIT];
  int64_t number;
  int64_t bytes;      /* of the picture's file */
  int32_t language;
} item;

enum { EMPTY, LOADING, READY, BAD };   /* state of a picture */

struct unic_dataset {
  _Atomic int32_t refs;
  unic_dataset_options how;
  char *root, *split, *language;
  block *blocks;
  unic_table **tables;
  int table_count;
  item *items;
  int64_t count, room, passed;
  char (*languages)[8];
  int language_count;
  uint64_t hash;
  pthread_mutex_t lock;   /* of the faults */
  unic_fault *faults;
  int64_t fault_count, fault_room;
  /* pictures [0, cached) can be kept */
  uint8_t *cache;
  int64_t cached;
  size_t cache_bytes;
  _Atomic uint8_t *states;
};

static int64_t plane_bytes(const unic_dataset *set) { return (int64_t)set->how.prepare.size * set->how.prepare.size; }

static unic_status no_memory(void) { return unic_fail_memory("no memory for the data set"); }

/* Room for one more in a list. */
static void *grown(void *list, int64_t count, int64_t *room, size_t size) {
  if (count < *room) return list;
  int64_t more = *room ? 2 * *room : 64;
  void *moved = realloc(list, (size_t)more * size);
  if (moved) *room = more;
  return moved;
}

static const char *keep(unic_dataset *set, const char *text) {
  size_t bytes = strlen(text) + 1;
  if (bytes == 1) return "";
  block *b = set->blocks;
  if (!b || b->room - b->used < bytes) {
    size_t room = bytes > (1 << 16) ? bytes : 1 << 16;
    b = malloc(sizeof *b + room);
    if (!b) return NULL;
    *b = (block){.next = set->blocks, .room = room};
    set->blocks = b;
  }
  char *to = b->text + b->used;
  memcpy(to, text, bytes);
  b->used += bytes;
  return to;
}

unic_status unic_dataset_new(const unic_dataset_options *options, unic_dataset **out) {
  unic_dataset *set = calloc(1, sizeof *set);
  *out = NULL;
  if (!set) return no_memory();
  set->refs = 1;
  set->how = *options;
  pthread_mutex_init(&set->lock, NULL);
  set->hash = UNIC_FNV;
  set->root = strdup(options->root ? options->root : "");
  set->split = options->split ? strdup(options->split) : NULL;
  set->languages = calloc(2, sizeof *set->languages);
  set->language = options->language ? strdup(options->language) : NULL;
  if (!set->root || (options->split && !set->split) || (options->language && !set->language) || !set->languages) {
    unic_dataset_release(set);
    return no_memory();
  }
  set->how.root = set->root;
  set->how.split = set->split;
  set->how.language = set->language;
  snprintf(set->languages[0], 8, "en");
  snprintf(set->languages[1], 8, "es");
  set->language_count = 2;
  *out = set;
  return UNIC_OK;
}

unic_dataset *unic_dataset_retain(unic_dataset *set) {
  atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
  return set;
}

void unic_dataset_release(unic_dataset *set) {
  if (!set || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1) return;
  while (set->blocks) {
    block *next = set->blocks->next;
    free(set->blocks);
    set->blocks = next;
  }
  for (int i = 0; i < set->table_count; i++) unic_table_free(set->tables[i]);
  free(set->tables);
  if (set->cache) munmap(set->cache, set->cache_bytes);
  free(set->states);
  free(set->items);
  free(set->languages);
  free(set->faults);
  free(set->root);
  free(set->split);
  free(set->language);
  pthread_mutex_destroy(&set->lock);
  free(set);
}

/* ---------------------------------------------------------------- faults */

unic_status unic_dataset_note(unic_dataset *set, int64_t row, const char *path, const char *reason) {
  unic_status status = UNIC_OK;
  pthread_mutex_lock(&set->lock);
  const char *own_path = keep(set, path), *own_reason = keep(set, reason);
  unic_fault *list = grown(set->faults, set->fault_count, &set->fault_room, sizeof *list);
  if (list) set->faults = list;
  if (list && own_path && own_reason) list[set->fault_count++] = (unic_fault){row, own_path, own_reason};
  else status = no_memory();
  pthread_mutex_unlock(&set->lock);
  return status;
}

unic_status unic_dataset_leave_out(unic_dataset *set, int64_t at, const char *reason) {
  const item *it = &set->items[at];
  const char *image = it->cells[UNIC_COLUMN_IMAGE];
  if (set->how.strict) return unic_fail("row %lld: %s", (long long)it->number, reason);
  pthread_mutex_lock(&set->lock);
  bool known = false;
  for (int64_t i = 0; i < set->fault_count && !known; i++) known = set->faults[i].row == it->number && strcmp(set->faults[i].reason, reason) == 0;
  pthread_mutex_unlock(&set->lock);
  return known ? UNIC_OK : unic_dataset_note(set, it->number, image, reason);
}

int64_t unic_dataset_faults(unic_dataset *set) {
  pthread_mutex_lock(&set->lock);
  int64_t count = set->fault_count;
  pthread_mutex_unlock(&set->lock);
  return count;
}

unic_fault unic_dataset_fault(unic_dataset *set, int64_t index) {
  pthread_mutex_lock(&set->lock);
  unic_fault fault = set->faults[index];
  pthread_mutex_unlock(&set->lock);
  return fault;
}

/* ---------------------------------------------------------------- filling */

/* The names a split goes by in other people's tables. */
static const char *split_name(const char *name) {
  static const char *const validation[] = {"val", "valid", "validate", "validation", "dev"};
  for (size_t i = 0; i < sizeof validation / sizeof *validation; i++) if (strcasecmp(name, validation[i]) == 0) return "val";
  static const char *const others[] = {"train", "test"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) if (strcasecmp(name, others[i]) == 0) return others[i];
  return strcasecmp(name, "training") == 0 ? "train" : strcasecmp(name, "testing") == 0 ? "test" : name;
}

static bool in_split(const unic_dataset *set, const char *const cells[UNIC_COLUMNS]) {
  if (!set->split) return true;
  if (set->how.has_split_column) return strcmp(split_name(cells[UNIC_COLUMN_SPLIT] ? cells[UNIC_COLUMN_SPLIT] : ""), split_name(set->split)) == 0;
  /* By patient, so that no patient is in two splits; a row without one is a patient of its own, named by its picture, or else by its words. */
  static const unic_column names[] = {UNIC_COLUMN_PATIENT, UNIC_COLUMN_IMAGE, UNIC_COLUMN_REPORT};
  const char *who = "";
  for (int i = 0; i < 3 && !*who; i++) if (cells[names[i]]) who = cells[names[i]];
  const double share = (double)(unic_mix(unic_fnv(UNIC_FNV, who, strlen(who))) >> 11) * 0x1p-53;
  const char *mine = share < set->how.validation ? "val" : share < set->how.validation + set->how.test ? "test" : "train";
  return strcmp(mine, split_name(set->split)) == 0;
}

static bool is_word_byte(unsigned char c) { return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

static int64_t count_words(const char *text) {
  int64_t words = 0;
  for (bool inside = false; *text; text++) {
    bool now = is_word_byte((unsigned char)*text);
    words += now && !inside;
    inside = now;
  }
  return words;
}

/* "en", "EN", " es ": two letters; NULL when it is something else. */
static const char *language_code(const char *text, char code[3]) {
  while (*text == ' ') text++;
  for (int i = 0; i < 2; i++) {
    char c = text[i];
    if (c >= 'A' && c <= 'Z') c = (char)(c + 32);
    if (c < 'a' || c > 'z') return NULL;
    code[i] = c;
  }
  code[2] = 0;
  for (text += 2; *text; text++) if (*text != ' ') return NULL;
  return code;
}

static unic_status path_of(const unic_dataset *set, const char *image, char *path, size_t room) {
  int n = snprintf(path, room, "%s%s", image[0] == '/' ? "" : set->root, image);
  return n >= 0 && (size_t)n < room ? UNIC_OK : unic_fail("'%.60s...': the path is too long", image);
}

/* What is wrong with a row, or NULL. */
static const char *fault_of(const unic_dataset *set, const char *const cells[UNIC_COLUMNS], item *it, char *text, size_t room) {
  const char *image = cells[UNIC_COLUMN_IMAGE], *report = cells[UNIC_COLUMN_REPORT], *language = cells[UNIC_COLUMN_LANGUAGE];
  char code[3], path[4096];
  if (set->how.report_required && (!report || !*report)) return "column 'report' is empty";
  if (report && set->how.min_words > 0) {
    int64_t words = count_words(report);
    if (words < set->how.min_words) {
      snprintf(text, room, "the report has %lld word%s, expected at least %lld", (long long)words, words == 1 ? "" : "s", (long long)set->how.min_words);
      return text;
    }
  }
  if (set->language && (!language || !*language)) language = set->language;
  if (language) {
    if (!language_code(language, code)) {
      snprintf(text, room, "language '%.20s', expected two letters such as en or es", language);
      return text;
    }
    it->language = code[0] | code[1] << 8;   /* its place in the list of languages when the set is complete */
  }
  if (set->how.source == UNIC_SOURCE_FILES) {
    if (!image) return NULL;   /* its picture comes from memory */
    if (!*image) return "column 'image' is empty";
    struct stat about;
    if (path_of(set, image, path, sizeof path) != UNIC_OK) return "the picture's path is too long";
    if (stat(path, &about) != 0) return "there is no such file";
    if (!S_ISREG(about.st_mode)) return "the picture is no file";
    it->bytes = about.st_size;
  }
  return NULL;
}

unic_status unic_dataset_add(unic_dataset *set, const char *const cells[UNIC_COLUMNS], int64_t number, bool copy, bool *added) {
  char text[200];
  *added = false;
  if (!in_split(set, cells)) {
    set->passed++;
    return UNIC_OK;
  }
  item it = {.number = number, .language = -1};
  const char *fault = fault_of(set, cells, &it, text, sizeof text);
  if (fault) {
    const char *image = cells[UNIC_COLUMN_IMAGE] ? cells[UNIC_COLUMN_IMAGE] : "";
    if (set->how.strict) return unic_fail("row %lld%s%.200s%s: %s", (long long)number, *image ? " ('" : "", image, *image ? "')" : "", fault);
    return unic_dataset_note(set, number, image, fault);
  }
  for (int c = 0; c < UNIC_COLUMN_SPLIT; c++) {
    const char *cell = cells[c] ? cells[c] : "";
    it.cells[c] = copy ? keep(set, cell) : cell;
    if (!it.cells[c]) return no_memory();
  }
  item *list = grown(set->items, set->count, &set->room, sizeof *list);
  if (!list) return no_memory();
  set->items = list;
  list[set->count++] = it;
  *added = true;
  return UNIC_OK;
}

unic_status unic_dataset_add_table(unic_dataset *set, unic_table *table, const int positions[UNIC_COLUMNS]) {
  unic_table **tables = realloc(set->tables, (size_t)(set->table_count + 1) * sizeof *tables);
  if (!tables) {
    unic_table_free(table);
    return no_memory();
  }
  set->tables = tables;
  tables[set->table_count++] = table;
  char sentence[512];
  const int64_t faults = unic_table_errors(table), rows = unic_table_rows(table);
  int64_t next = 0;   /* the table's own faults, in their places */
  for (int64_t row = 0; row <= rows; row++) {
    const int64_t number = row < rows ? unic_table_row_number(table, row) : INT64_MAX;
    for (; next < faults; next++) {
      const int64_t at = unic_table_error(table, next, sentence, sizeof sentence);
      if (at > number) break;
      if (set->how.strict) return unic_fail("%s", sentence);
      const char *reason = strstr(sentence, ": ");   /* the row stands in a column of its own */
      UNIC_TRY(unic_dataset_note(set, at, "", reason ? reason + 2 : sentence));
    }
    if (row == rows) break;
    const char *cells[UNIC_COLUMNS];
    for (int c = 0; c < UNIC_COLUMNS; c++) cells[c] = positions[c] < 0 ? NULL : unic_table_get(table, row, positions[c]);
    bool added;
    UNIC_TRY(unic_dataset_add(set, cells, number, false, &added));
  }
  return UNIC_OK;
}

static int compare_names(const void *a, const void *b) { return strcmp(a, b); }

/* From two letters to places in a list: en, es, then the others by name. */
static unic_status order_languages(unic_dataset *set) {
  bool seen[26 * 26] = {false};
  int others = 0;
  for (int64_t i = 0; i < set->count; i++) {
    const int code = set->items[i].language;
    if (code < 0) continue;
    const int slot = ((code & 255) - 'a') * 26 + (code >> 8) - 'a';
    if (!seen[slot] && code != ('e' | 'n' << 8) && code != ('e' | 's' << 8)) others++;
    seen[slot] = true;
  }
  char (*list)[8] = realloc(set->languages, (size_t)(2 + others) * sizeof *list);
  if (!list) return no_memory();
  set->languages = list;
  int count = 2, place[26 * 26] = {0};
  for (int slot = 0; slot < 26 * 26; slot++) {
    const char name[3] = {(char)('a' + slot / 26), (char)('a' + slot % 26), 0};
    if (strcmp(name, "en") == 0) place[slot] = 0;
    else if (strcmp(name, "es") == 0) place[slot] = 1;
    else if (seen[slot]) {
      place[slot] = count;
      snprintf(list[count++], 8, "%s", name);
    }
  }
  qsort(list + 2, (size_t)(count - 2), sizeof *list, compare_names);   /* the slots are in this order already */
  set->language_count = count;
  for (int64_t i = 0; i < set->count; i++) {
    const int code = set->items[i].language;
    if (code >= 0) set->items[i].language = place[((code & 255) - 'a') * 26 + (code >> 8) - 'a'];
  }
  return UNIC_OK;
}

static unic_status make_cache(unic_dataset *set) {
  if (set->cache || set->how.source == UNIC_SOURCE_CALLS || set->how.source == UNIC_SOURCE_NONE) return UNIC_OK;
  const int64_t plane = plane_bytes(set);
  const int64_t fit = set->how.cache_bytes / plane;
  set->cached = fit < set->count ? fit : set->count;
  set->states = calloc((size_t)set->count + 1, sizeof *set->states);
  if (!set->states) return no_memory();
  if (set->cached == 0) return UNIC_OK;
  set->cache_bytes = (size_t)(set->cached * plane);
  /* Addresses only: a page costs memory when a picture is put on it. */
  void *p = mmap(NULL, set->cache_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return no_memory();
  set->cache = p;
  return UNIC_OK;
}

void unic_dataset_hash_more(unic_dataset *set, const void *data, size_t bytes) { set->hash = unic_fnv(set->hash, data, bytes); }

unic_status unic_dataset_finish(unic_dataset *set) {
  UNIC_TRY(order_languages(set));
  unic_dataset_hash_more(set, &set->count, sizeof set->count);
  for (int64_t i = 0; i < set->count; i++) {
    const item *it = &set->items[i];
    for (int c = 0; c < UNIC_COLUMN_SPLIT; c++) unic_dataset_hash_more(set, it->cells[c], strlen(it->cells[c]) + 1);
    unic_dataset_hash_more(set, &it->bytes, sizeof it->bytes);
  }
  return make_cache(set);
}

unic_status unic_dataset_put(unic_dataset *set, int64_t at, const void *pixels, int bits, int32_t height, int32_t width) {
  if (at >= set->cached) return unic_fail("pictures in memory are more than the cache holds: %lld, room for %lld; a larger cache_mb takes them", (long long)set->count, (long long)set->cached);
  uint8_t *to = set->cache + at * plane_bytes(set);
  unic_image_prepare(pixels, bits, height, width, &set->how.prepare, to);
  unic_dataset_hash_more(set, to, (size_t)plane_bytes(set));
  atomic_store_explicit(&set->states[at], READY, memory_order_release);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- looking */

int64_t unic_dataset_count(const unic_dataset *set) { return set->count; }
const unic_dataset_options *unic_dataset_how(const unic_dataset *set) { return &set->how; }
int64_t unic_dataset_other_splits(const unic_dataset *set) { return set->passed; }
const char *unic_dataset_text(const unic_dataset *set, int64_t i, unic_column column) { return column == UNIC_COLUMN_SPLIT ? "" : set->items[i].cells[column]; }
int64_t unic_dataset_number(const unic_dataset *set, int64_t i) { return set->items[i].number; }
int unic_dataset_languages(const unic_dataset *set) { return set->language_count; }
const char *unic_dataset_language_name(const unic_dataset *set, int language) { return set->languages[language]; }
int unic_dataset_language(const unic_dataset *set, int64_t i) { return set->items[i].language; }
uint64_t unic_dataset_hash(const unic_dataset *set) { return unic_mix(set->hash); }

/* ---------------------------------------------------------------- pictures */

/* Decode or draw an item's picture into out; a picture that cannot be used is noted. */
static unic_status make_picture(unic_dataset *set, int64_t at, uint8_t *out, unic_dataset_draw *draw, void *context, bool *bad) {
  if (set->how.source == UNIC_SOURCE_DRAWN) return draw && context ? draw(context, at, out) : unic_fail("the pictures are drawn, and there is nobody to draw them");
  char path[4096];
  const char *name = set->items[at].cells[UNIC_COLUMN_IMAGE];
  unic_image image = {0};
  unic_status status = path_of(set, name, path, sizeof path);
  if (status == UNIC_OK) status = unic_image_read(&image, path, true);
  if (status == UNIC_OK) {
    unic_image_prepare(image.pixels, image.bits, image.height, image.width, &set->how.prepare, out);
    unic_image_free(&image);
    return UNIC_OK;
  }
  if (status != UNIC_ERROR) return status;   /* out of memory: not the picture's fault */
  if (set->how.strict) return unic_fail_prefix(status, "row %lld: ", (long long)set->items[at].number);
  /* Once only: several workers may meet it. */
  *bad = true;
  if (atomic_exchange_explicit(&set->states[at], BAD, memory_order_acq_rel) == BAD) return UNIC_OK;
  const char *sentence = unic_message(), *reason = strstr(sentence, "': ");   /* the path stands in a column of its own */
  return unic_dataset_note(set, set->items[at].number, name, reason ? reason + 3 : sentence);
}

unic_status unic_dataset_picture(unic_dataset *set, int64_t at, uint8_t *scratch, unic_dataset_draw *draw, void *context,
                                 const uint8_t **pixels, bool *bad) {
  const int64_t plane = plane_bytes(set);
  uint8_t state = atomic_load_explicit(&set->states[at], memory_order_acquire);
  *bad = state == BAD;
  *pixels = scratch;
  if (*bad) return UNIC_OK;
  if (state == READY) {
    *pixels = set->cache + at * plane;
    return UNIC_OK;
  }
  uint8_t expected = EMPTY;
  /* Whoever marks it fills the cache; another worker that needs the picture meanwhile makes its own. */
  const bool mine = at < set->cached && atomic_compare_exchange_strong(&set->states[at], &expected, LOADING);
  uint8_t *out = mine ? set->cache + at * plane : scratch;
  unic_status status = make_picture(set, at, out, draw, context, bad);
  if (mine && !*bad) atomic_store_explicit(&set->states[at], status == UNIC_OK ? READY : EMPTY, memory_order_release);
  *pixels = out;
  return status;
}

/* ---------------------------------------------------------------- text */

/* The end of the sentence that begins at `at`: after . ! or ? before a blank or the end (so that 2.5 stays whole), or at a line's end. */
static const char *sentence_end(const char *at) {
  for (; *at; at++) {
    if (*at == '\n' || *at == '\r') return at;
    if ((*at == '.' || *at == '!' || *at == '?') && (at[1] == 0 || at[1] == ' ' || at[1] == '\t' || at[1] == '\n' || at[1] == '\r')) return at + 1;
  }
  return at;
}

static const char *skip_blanks(const char *at) {
  while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') at++;
  return at;
}

typedef struct sentence { const char *begin, *end; } sentence;
enum { SENTENCES = 64 };   /* that are told apart; what follows belongs to the last */

static void shuffle(sentence *list, int64_t count, unic_stream *random) {
  for (int64_t i = count - 1; i > 0; i--) {
    const int64_t j = unic_stream_below(random, i + 1);
    const sentence s = list[i];
    list[i] = list[j];
    list[j] = s;
  }
}

/* Lines of the column of sentences that begin with `mark`. */
static int64_t marked(const char *lines, char mark, sentence *list) {
  int64_t count = 0;
  while (*lines) {
    const char *end = strchr(lines, '\n');
    if (!end) end = lines + strlen(lines);
    if (*lines == mark && count < SENTENCES) list[count++] = (sentence){lines + 1, end};
    lines = *end ? end + 1 : end;
  }
  return count;
}

size_t unic_dataset_sample_room(const unic_dataset *set, int64_t i) {
  const size_t report = strlen(set->items[i].cells[UNIC_COLUMN_REPORT]), sentences = strlen(set->items[i].cells[UNIC_COLUMN_SENTENCES]);
  return (report > sentences ? report : sentences) + 1;
}

size_t unic_dataset_sample_text(const unic_dataset *set, int64_t i, uint64_t epoch, char *out) {
  static const char purpose[] = "text";
  const char *text = set->items[i].cells[UNIC_COLUMN_REPORT], *lines = set->items[i].cells[UNIC_COLUMN_SENTENCES];
  unic_stream random = unic_stream_open(0, epoch, (uint64_t)i, unic_fnv(UNIC_FNV, purpose, sizeof purpose - 1));
  sentence list[2 * SENTENCES];
  int64_t count = 0;
  if (*lines) {
    sentence others[SENTENCES];
    count = marked(lines, '+', list);
    const int64_t other = marked(lines, '-', others);
    shuffle(list, count, &random);
    shuffle(others, other, &random);
    int64_t extra = unic_stream_below(&random, 3);
    if (count == 0 && extra == 0) extra = 1;
    for (int64_t k = 0; k < extra && k < other; k++) list[count++] = others[k];
    shuffle(list, count, &random);
  } else {
    for (const char *at = skip_blanks(text); *at; at = skip_blanks(at)) {
      const char *stop = count == SENTENCES - 1 ? at + strlen(at) : sentence_end(at);
      list[count++] = (sentence){at, stop};
      at = stop;
    }
    shuffle(list, count, &random);
    if (count > 1) count = 1 + unic_stream_below(&random, count);
  }
  size_t used = 0;
  for (int64_t k = 0; k < count; k++) {
    if (used) out[used++] = ' ';
    const size_t bytes = (size_t)(list[k].end - list[k].begin);
    memcpy(out + used, list[k].begin, bytes);
    used += bytes;
  }
  out[used] = 0;
  return used;
}
