/* Letting go of structures whose size is known: what every call does several times. */
#ifndef UNIC_STRUCTURES_H
#define UNIC_STRUCTURES_H

#include <stddef.h>

/* unic_delete for what unic_new gave for so many bytes. To ask malloc for the size is to read the line before the structure, which nobody else needs. */
void unic_delete_sized(void *p, size_t bytes);

#endif
