/* Processor features, read once. */
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[UNIC_ISAS] = {"base", "avx2", "avx512", "avx512_bf16"};

const char *unic_isa_name(unic_isa isa) { return names[isa]; }

unic_isa unic_isa_best(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  /* The levels of the x86-64 ABI: v3 is AVX2 + FMA + BMI + F16C, v4 adds AVX-512 F, BW, CD, DQ, VL. */
  int v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
  int v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (v4 && __builtin_cpu_supports("avx512bf16")) return UNIC_ISA_AVX512_BF16;
  if (v4) return UNIC_ISA_AVX512;
  if (v3) return UNIC_ISA_AVX2;
#endif
  return UNIC_ISA_BASE;
}

static int chosen = -1;

void unic_isa_set(unic_isa isa) { chosen = isa <= unic_isa_best() ? (int)isa : (int)unic_isa_best(); }

unic_isa unic_isa_current(void) {
  if (chosen < 0) {
    unic_isa best = unic_isa_best();
    const char *text = getenv("UNIC_ISA");
    int want = best;
    for (int i = 0; text && i < UNIC_ISAS; i++)
      if (strcmp(text, names[i]) == 0) want = i;
    chosen = want < (int)best ? want : (int)best;
  }
  return (unic_isa)chosen;
}
