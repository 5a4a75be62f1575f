/* NumPy's files: .npy (one array, named "(root)") and .npz (a zip archive of them, named by their members without ".npy").
 *
 * Layout of .npy: "\x93NUMPY", two bytes of version (1.0, 2.0, 3.0), the header's length (2 bytes, from version 2 on 4), the header: a Python dict
 * of literals {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }, then the elements. The header is read as text, by a parser that knows
 * only that; arrays of Python objects, which NumPy would unpickle, are refused and never looked into.
 *
 * Column-major and big-endian arrays come out row-major and little-endian. Types that this runtime has none for are listed (by the format's own
 * name for them, such as "S10", where safetensors has none) and refused when read. */
#ifndef UNIC_FILES_NPY_H
#define UNIC_FILES_NPY_H

#include "weights.h"

unic_status unic_npy_open(unic_weights **file, const char *path);

#endif
