/* Values of a pickle as short texts for people. */
#ifndef UNIC_FILES_TORCH_TEXT_H
#define UNIC_FILES_TORCH_TEXT_H

#include <stddef.h>

#include "pickle.h"

enum { UNIC_TORCH_TEXT_BYTES = 256 };

/* Numbers, texts, None, True, False as Python writes them (texts without quotes), lists of them in brackets, NumPy's scalars as numbers; what is
 * longer, or of a class that is not known, as "<...>". Nothing inside of such an object is looked at. */
void unic_torch_describe(const unic_pickle_value *v, char *text, size_t bytes);

#endif
