/* CSV files into columns of C strings.
 *
 * The file is read whole and unescaped in place: the cells that are kept move to the front of the buffer, each ended by a NUL (a cell and
 * its NUL never need more room than the cell and its separator did), and the rest of the buffer is given back. A cell then costs its text
 * and 8 bytes. A bad row costs 32 bytes, its sentence is made when asked for: no file can blow memory up by being wrong. */
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "utf8.h"

enum { MOST_FIELDS = 65536 };

typedef enum fault_kind {
  FAULT_FIELDS,   /* detail: fields found */
  FAULT_AFTER,    /* text after a closing quote; detail: field */
  FAULT_OPEN,     /* a quoted field without end; detail: field */
  FAULT_UTF8,     /* detail: column, byte: offset in the cell */
  FAULT_NUL       /* detail: column */
} fault_kind;

typedef struct fault {
  int64_t row, line, byte;
  int32_t kind, detail;
} fault;

struct unic_table {
  char *path;
  char *text;        /* all kept cells */
  char **names;      /* [columns] kept columns */
  int columns, fields; /* kept; in the header */
  int64_t rows, capacity;
  int64_t *cells;    /* [rows][columns] offsets into text */
  int64_t *numbers;  /* [rows] row number in the file */
  fault *faults;
  int64_t fault_count, fault_capacity;
};

typedef struct field {
  char *begin, *end;
  bool quoted; /* begin..end lies inside the quotes and holds doubled ones */
} field;

typedef struct parser {
  char *at, *end;
  int64_t row, line; /* of the record at `at` */
  int64_t rescan;    /* bytes that may still be read twice */
  field *fields;     /* [room] of the record just read */
  int room;
  int count;         /* fields in the record; those past `room` are only counted */
  char *next;        /* start of the next record */
  int64_t next_line;
} parser;

static int64_t count_lines(const char *begin, const char *end) {
  int64_t lines = 0;
  for (const char *p = begin; p < end; p++) lines += *p == '\n' || (*p == '\r' && (p + 1 == end || p[1] != '\n'));
  return lines;
}

/* Past the line end at p, if there is one. */
static char *skip_line_end(char *p, const char *end) {
  if (p < end && *p == '\r') {
    p++;
    return p < end && *p == '\n' ? p + 1 : p;
  }
  return p < end && *p == '\n' ? p + 1 : p;
}

static char *find_line_end(char *p, const char *end) {
  while (p < end && *p != '\n' && *p != '\r') p++;
  return p;
}

/* The closing quote of a field that opened before p, or NULL. */
static char *find_closing_quote(char *p, char *end) {
  while ((p = memchr(p, '"', (size_t)(end - p)))) {
    if (p + 1 < end && p[1] == '"') {
      p += 2;
    } else {
      return p;
    }
  }
  return NULL;
}

/* Split the record at parser->at into fields. Returns -1 if it is whole, else the fault; parser->next is set either way.
 *
 * After a fault in the quotes, reading goes on at the line after the one where the record began: a forgotten quote would otherwise swallow
 * good rows, to the end of the file at worst. That reads bytes twice; a file made to exploit it runs out of `rescan`, and from there on
 * the faulty record is skipped to where its reading stopped. */
static int read_record(parser *p, int *detail) {
  char *at = p->at;
  bool quoted = false;
  p->count = 0;
  for (;;) {
    field f = {at, at, false};
    if (at < p->end && *at == '"') {
      f.begin = at + 1;
      f.quoted = quoted = true;
      f.end = find_closing_quote(f.begin, p->end);
      char *after = f.end ? f.end + 1 : p->end;
      if (!f.end || (after < p->end && *after != ',' && *after != '\n' && *after != '\r')) {
        *detail = p->count;
        char *line_end = find_line_end(p->at, p->end);
        if (after > line_end) p->rescan -= after - line_end;
        char *resume = after > line_end && p->rescan < 0 ? find_line_end(after, p->end) : line_end;
        p->next = skip_line_end(resume, p->end);
        p->next_line = p->line + count_lines(p->at, p->next);
        return f.end ? FAULT_AFTER : FAULT_OPEN;
      }
      at = after;
    } else {
      while (at < p->end && *at != ',' && *at != '\n' && *at != '\r') at++;
      f.end = at;
    }
    if (p->count < p->room) p->fields[p->count] = f;
    p->count++;
    if (at == p->end || *at != ',') break;
    at++;
  }
  p->next = skip_line_end(at, p->end);
  p->next_line = p->line + (quoted ? count_lines(p->at, p->next) : 1);
  return -1;
}

/* Move a field to `to` (never behind its own begin), undoubling quotes and ending it by a NUL. Returns its length. */
static int64_t move_field(char *to, const field *f) {
  if (!f->quoted) {
    int64_t bytes = f->end - f->begin;
    memmove(to, f->begin, (size_t)bytes);
    to[bytes] = 0;
    return bytes;
  }
  char *out = to;
  for (char *p = f->begin; p < f->end;) {
    char *quote = memchr(p, '"', (size_t)(f->end - p));
    char *stop = quote ? quote + 1 : f->end;
    memmove(out, p, (size_t)(stop - p));
    out += stop - p;
    p = quote ? quote + 2 : f->end;
  }
  *out = 0;
  return out - to;
}

static unic_status fail_room(const unic_table *t) { return unic_fail_memory("'%s': no memory for its rows", t->path); }

static unic_status add_fault(unic_table *t, const parser *p, int kind, int detail, int64_t byte) {
  if (t->fault_count == t->fault_capacity) {
    int64_t capacity = t->fault_capacity ? t->fault_capacity * 2 : 16;
    fault *larger = realloc(t->faults, (size_t)capacity * sizeof *larger);
    if (!larger) return fail_room(t);
    t->faults = larger;
    t->fault_capacity = capacity;
  }
  t->faults[t->fault_count++] = (fault){p->row, p->line, byte, kind, detail};
  return UNIC_OK;
}

static unic_status make_room(unic_table *t) {
  if (t->rows < t->capacity) return UNIC_OK;
  int64_t capacity = t->capacity ? t->capacity * 2 : 256;
  int64_t *cells = realloc(t->cells, (size_t)capacity * (size_t)(t->columns ? t->columns : 1) * sizeof *cells);
  if (!cells) return fail_room(t);
  t->cells = cells;
  int64_t *numbers = realloc(t->numbers, (size_t)capacity * sizeof *numbers);
  if (!numbers) return fail_room(t);
  t->numbers = numbers;
  t->capacity = capacity;
  return UNIC_OK;
}

/* Append the header's names to a sentence: "image, report, language". */
static void list_names(char *text, size_t room, char *const *names, int count) {
  size_t used = 0;
  text[0] = 0;
  for (int i = 0; i < count && used < room; i++) {
    int wrote = snprintf(text + used, room - used, i ? ", '%s'" : "'%s'", names[i]);
    if (wrote < 0) break;
    used += (size_t)wrote;
  }
  if (used >= room) memcpy(text + room - 4, "...", 4);
}

static void trim(char *name) {
  char *begin = name + strspn(name, " \t");
  char *end = begin + strlen(begin);
  while (end > begin && (end[-1] == ' ' || end[-1] == '\t')) end--;
  memmove(name, begin, (size_t)(end - begin));
  name[end - begin] = 0;
}

static void free_names(char **names, int count) {
  for (int i = 0; names && i < count; i++) free(names[i]);
  free(names);
}

/* Read the header: the names of all columns, and keep[field] = is that column asked for? */
static unic_status read_header(unic_table *t, parser *p, const unic_table_column *columns, int count, bool **keep) {
  int detail;
  p->row = 1;
  while (p->at < p->end) { /* blank lines before the header */
    char *past = skip_line_end(p->at, p->end);
    if (past == p->at) break;
    p->at = past;
    p->row++;
    p->line++;
  }
  if (p->at == p->end) return unic_fail("'%s': is empty, expected a header line and rows", t->path);
  p->room = 0;
  int wrong = read_record(p, &detail);
  if (wrong >= 0) return unic_fail("'%s': the header's quotes are wrong (field %d)", t->path, detail + 1);
  if (p->count > MOST_FIELDS) return unic_fail("'%s': the header has %d fields, the limit is %d", t->path, p->count, MOST_FIELDS);
  t->fields = p->count;
  p->fields = calloc((size_t)t->fields, sizeof *p->fields);
  *keep = calloc((size_t)t->fields, sizeof **keep);
  char **names = calloc((size_t)t->fields, sizeof *names);
  t->names = calloc((size_t)t->fields, sizeof *t->names);
  unic_status status = UNIC_OK;
  if (!p->fields || !*keep || !names || !t->names) {
    status = fail_room(t);
    goto done;
  }
  p->room = t->fields;
  read_record(p, &detail);

  if (memchr(p->at, 0, (size_t)(p->next - p->at))) {
    status = unic_fail("'%s': is not a text file (its header holds a zero byte), expected CSV in UTF-8", t->path);
    goto done;
  }
  int64_t bad = unic_utf8_check(p->at, p->next - p->at);
  if (bad >= 0) {
    status = unic_fail("'%s': the header is not UTF-8 (byte 0x%02X at position %lld)", t->path, (uint8_t)p->at[bad], (long long)bad + 1);
    goto done;
  }
  for (int i = 0; i < t->fields; i++) {
    names[i] = malloc((size_t)(p->fields[i].end - p->fields[i].begin) + 1);
    if (!names[i]) {
      status = fail_room(t);
      goto done;
    }
    move_field(names[i], &p->fields[i]);
    trim(names[i]);
    (*keep)[i] = columns == NULL;
  }
  if (t->fields == 1 && strpbrk(names[0], ";\t|")) {
    status = unic_fail("'%s': the header is a single column, '%.200s'; only the comma separates columns", t->path, names[0]);
    goto done;
  }
  for (int c = 0; c < count; c++) {
    int found = -1, times = 0;
    for (int i = 0; i < t->fields; i++) {
      if (strcmp(names[i], columns[c].name) != 0) continue;
      found = i;
      times++;
    }
    if (times > 1) {
      status = unic_fail("'%s': the header names column '%s' %d times", t->path, columns[c].name, times);
      goto done;
    }
    if (times == 1) {
      (*keep)[found] = true;
    } else if (columns[c].required) {
      char list[1024];
      list_names(list, sizeof list, names, t->fields);
      status = unic_fail("'%s': has no column '%s'; its header names %s", t->path, columns[c].name, list);
      goto done;
    }
  }
  for (int i = 0; i < t->fields; i++) {
    if (!(*keep)[i]) continue;
    t->names[t->columns++] = names[i];
    names[i] = NULL;
  }

done:
  free_names(names, t->fields);
  return status;
}

/* Check a record's kept fields and move them to `*to`; or put the record on the list of faults. */
static unic_status take_record(unic_table *t, parser *p, const bool *keep, char **to) {
  if (p->count != t->fields) return add_fault(t, p, FAULT_FIELDS, p->count, 0);
  for (int i = 0, column = 0; i < t->fields; i++) {
    if (!keep[i]) continue;
    const field *f = &p->fields[i];
    if (memchr(f->begin, 0, (size_t)(f->end - f->begin))) return add_fault(t, p, FAULT_NUL, column, 0);
    int64_t bad = unic_utf8_check(f->begin, f->end - f->begin);
    if (bad >= 0) return add_fault(t, p, FAULT_UTF8, column, (uint8_t)f->begin[bad]);
    column++;
  }
  UNIC_TRY(make_room(t));
  int64_t *cell = t->cells + t->rows * t->columns;
  for (int i = 0; i < t->fields; i++) {
    if (!keep[i]) continue;
    *cell++ = *to - t->text;
    *to += move_field(*to, &p->fields[i]) + 1;
  }
  t->numbers[t->rows++] = p->row;
  return UNIC_OK;
}

static unic_status parse(unic_table *t, int64_t bytes, const unic_table_column *columns, int count) {
  const uint8_t *head = (const uint8_t *)t->text;
  if (bytes >= 2 && ((head[0] == 0xFF && head[1] == 0xFE) || (head[0] == 0xFE && head[1] == 0xFF))) {
    return unic_fail("'%s': is UTF-16 text, expected CSV in UTF-8", t->path);
  }
  bool mark = bytes >= 3 && memcmp(head, "\xEF\xBB\xBF", 3) == 0;
  parser p = {.at = t->text + (mark ? 3 : 0), .end = t->text + bytes, .line = 1, .rescan = 4 * bytes + (1 << 20)};
  bool *keep = NULL;
  char *to = t->text;
  unic_status status = read_header(t, &p, columns, count, &keep);
  if (status != UNIC_OK) goto done;

  for (p.at = p.next, p.line = p.next_line, p.row++; p.at < p.end; p.at = p.next, p.line = p.next_line, p.row++) {
    int detail = 0;
    int wrong = read_record(&p, &detail);
    if (wrong >= 0) {
      status = add_fault(t, &p, wrong, detail, 0);
    } else if (p.count > 1 || p.fields[0].quoted || p.fields[0].end > p.fields[0].begin) { /* else a blank line */
      status = take_record(t, &p, keep, &to);
    }
    if (status == UNIC_OK && (p.row & 0xFFFF) == 0 && unic_interrupted()) status = unic_fail_interrupted();
    if (status != UNIC_OK) goto done;
  }
  /* Give back what the kept cells do not use; a refusal only leaves the blocks larger. */
  char *text = realloc(t->text, to > t->text ? (size_t)(to - t->text) : 1);
  if (text) t->text = text;
  if (t->rows) {
    int64_t *cells = realloc(t->cells, (size_t)t->rows * (size_t)(t->columns ? t->columns : 1) * sizeof *cells);
    int64_t *numbers = realloc(t->numbers, (size_t)t->rows * sizeof *numbers);
    if (cells) t->cells = cells;
    if (numbers) t->numbers = numbers;
    t->capacity = t->rows;
  }

done:
  free(keep);
  free(p.fields);
  return status;
}

/* Takes `text`, which a NUL must follow. */
static unic_status table_take(unic_table **table, const char *name, char *text, int64_t bytes, const unic_table_column *columns, int count) {
  unic_table *t = calloc(1, sizeof *t);
  char *path = strdup(name);
  if (!t || !path) {
    free(t);
    free(path);
    free(text);
    return unic_fail_memory("'%s': no memory for its rows", name);
  }
  t->path = path;
  t->text = text;
  unic_status status = parse(t, bytes, columns, count);
  if (status != UNIC_OK) {
    unic_table_free(t);
    return status;
  }
  *table = t;
  return UNIC_OK;
}

unic_status unic_table_read(unic_table **table, const char *path, const unic_table_column *columns, int count) {
  char *text;
  int64_t bytes;
  *table = NULL;
  UNIC_TRY(unic_file_read(path, INT64_C(1) << 40, &text, &bytes));
  return table_take(table, path, text, bytes, columns, count);
}

unic_status unic_table_parse(unic_table **table, const char *name, const char *text, int64_t bytes, const unic_table_column *columns, int count) {
  *table = NULL;
  char *copy = malloc((size_t)bytes + 1);
  if (!copy) return unic_fail_memory("'%s': no memory for its rows", name);
  memcpy(copy, text, (size_t)bytes);
  copy[bytes] = 0;
  return table_take(table, name, copy, bytes, columns, count);
}

void unic_table_free(unic_table *t) {
  if (!t) return;
  free_names(t->names, t->columns);
  free(t->path);
  free(t->text);
  free(t->cells);
  free(t->numbers);
  free(t->faults);
  free(t);
}

const char *unic_table_path(const unic_table *t) { return t->path; }
int64_t unic_table_rows(const unic_table *t) { return t->rows; }
int unic_table_columns(const unic_table *t) { return t->columns; }
int unic_table_ignored(const unic_table *t) { return t->fields - t->columns; }
const char *unic_table_name(const unic_table *t, int column) { return t->names[column]; }

int unic_table_find(const unic_table *t, const char *name) {
  for (int c = 0; c < t->columns; c++) {
    if (strcmp(t->names[c], name) == 0) return c;
  }
  return -1;
}

const char *unic_table_get(const unic_table *t, int64_t row, int column) { return t->text + t->cells[row * t->columns + column]; }
int64_t unic_table_row_number(const unic_table *t, int64_t row) { return t->numbers[row]; }
int64_t unic_table_errors(const unic_table *t) { return t->fault_count; }

int64_t unic_table_error(const unic_table *t, int64_t index, char *text, int64_t room) {
  const fault *f = &t->faults[index];
  char place[64];
  /* The line is named where it is not the row: after fields that hold line ends. */
  if (f->line == f->row) {
    snprintf(place, sizeof place, "row %lld", (long long)f->row);
  } else {
    snprintf(place, sizeof place, "row %lld (line %lld)", (long long)f->row, (long long)f->line);
  }
  size_t n = (size_t)room;
  switch (f->kind) {
  case FAULT_FIELDS:
    snprintf(text, n, "%s: %d field%s, the header has %d", place, f->detail, f->detail == 1 ? "" : "s", t->fields);
    break;
  case FAULT_AFTER: snprintf(text, n, "%s: field %d goes on after its closing quote", place, f->detail + 1); break;
  case FAULT_OPEN: snprintf(text, n, "%s: field %d opens a quote that is never closed", place, f->detail + 1); break;
  case FAULT_UTF8:
    snprintf(text, n, "%s: column '%s' is not UTF-8 (byte 0x%02X)", place, t->names[f->detail], (unsigned)f->byte);
    break;
  default: snprintf(text, n, "%s: column '%s' holds a zero byte", place, t->names[f->detail]); break;
  }
  return f->row;
}
