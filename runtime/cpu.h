/* Which instruction set the kernels use: one table per level, chosen once at load. */
#ifndef UNIC_CPU_H
#define UNIC_CPU_H

typedef enum unic_isa { UNIC_ISA_BASE, UNIC_ISA_AVX2, UNIC_ISA_AVX512, UNIC_ISA_AVX512_BF16, UNIC_ISAS } unic_isa;

/* The table in use: the best this processor runs, or what UNIC_ISA asks for (base, avx2, avx512, avx512_bf16; more than the processor has
 * is lowered to what it has). */
unic_isa unic_isa_current(void);
/* Use another table from now on (at most unic_isa_best()); for specs. */
void unic_isa_set(unic_isa isa);
/* The best table this processor runs. */
unic_isa unic_isa_best(void);
const char *unic_isa_name(unic_isa isa);

#endif
