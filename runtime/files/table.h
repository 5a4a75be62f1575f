/* Tables from CSV files: UTF-8, RFC 4180, a header line; columns of text in C memory.
 *
 * Accepted beside the RFC: a byte order mark, LF or CR alone as line ends, blank lines, a quote inside an unquoted field (kept as it is),
 * blanks around names in the header. Only the comma separates. A row that is wrong costs itself and no other: it is put on a list with
 * its reason, and reading goes on. A table does not change once it is read, so any number of threads may look at it.
 *
 * Rows are counted as a spreadsheet shows them: the header is row 1, blank lines count. Positions in the table count from 0. */
#ifndef UNIC_FILES_TABLE_H
#define UNIC_FILES_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "../status.h"

typedef struct unic_table unic_table;

/* A column to keep. A missing one is an error if required, and absent from the table otherwise. */
typedef struct unic_table_column {
  const char *name;
  bool required;
} unic_table_column;

/* Read the columns asked for (columns == NULL: all of them); the text of the others is given back. Fails, with a sentence that begins with
 * the path, on what makes the whole file useless: it cannot be read, is empty, is not text, lacks a required column. */
unic_status unic_table_read(unic_table **table, const char *path, const unic_table_column *columns, int count);

/* The same from memory (the bytes are copied); `name` stands for the path in sentences. */
unic_status unic_table_parse(unic_table **table, const char *name, const char *text, int64_t bytes, const unic_table_column *columns, int count);

void unic_table_free(unic_table *table); /* NULL is harmless */

const char *unic_table_path(const unic_table *table);
int64_t unic_table_rows(const unic_table *table);    /* good rows */
int unic_table_columns(const unic_table *table);     /* columns kept, in the file's order */
int unic_table_ignored(const unic_table *table);     /* columns that the file has beside them */
const char *unic_table_name(const unic_table *table, int column);
int unic_table_find(const unic_table *table, const char *name); /* the column of that name, -1: none */

/* A cell: NUL-terminated UTF-8 (NUL itself cannot occur in it), valid as long as the table. */
const char *unic_table_get(const unic_table *table, int64_t row, int column);

/* The number of a good row in the file. */
int64_t unic_table_row_number(const unic_table *table, int64_t row);

/* Bad rows, in the order of the file. The sentence, "row 17: 5 fields, the header has 4", is written to `text` and cut at `room`. */
int64_t unic_table_errors(const unic_table *table);
int64_t unic_table_error(const unic_table *table, int64_t index, char *text, int64_t room); /* returns the row's number */

#endif
