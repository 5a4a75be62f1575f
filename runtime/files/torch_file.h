/* PyTorch's files: what torch.save writes, as a zip archive (since 1.6) or as a row of pickles (before).
 *
 * Zip: <folder>/data.pkl is a pickle of the object saved, in which each tensor names a storage by a key; <folder>/data/<key> is that storage's
 * bytes. Legacy: five pickles (a magic number, the protocol's number, facts about the machine, the object, the list of storage keys), then each
 * storage: its number of elements as 8 bytes, then its elements.
 *
 * The pickle is read as data (pickle.h): nothing in a file is ever run, imported or opened. Names of nested dicts and lists are joined with "."
 * (places in lists count from 0); an object that is itself a tensor is "(root)". What is no tensor shows in the pairs, as text where it is short.
 * Tensors that this runtime cannot hold (quantised, sparse, complex, ...) are listed with their kind; reading one is a sentence.
 *
 * A tensor may be any view of its storage, and may share it; elements are gathered from the map straight to where they are wanted. Bounds,
 * strides and sizes are checked at opening, a storage's checksum when it is first read. */
#ifndef UNIC_FILES_TORCH_FILE_H
#define UNIC_FILES_TORCH_FILE_H

#include "weights.h"

unic_status unic_torch_open(unic_weights **file, const char *path);

#endif
