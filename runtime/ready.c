/* The moment from which a walk does not need a leaf any more. */
#include "ready.h"
#include "recompute.h"

#include <stdlib.h>

typedef struct waiting {
  uint64_t memory;      /* the leaf's storage: the number it was born with */
  int leaf;             /* its place in what the caller gave */
  int last;             /* the last node in the walk that has to do with that memory; -1: none has */
} waiting;

struct unic_ready_plan {
  const unic_ready *ready;
  waiting *leaves;      /* (held) by memory; when the plan is made: by last node */
  int n, next;          /* next: the first that is not told of */
};

static int by_memory(const void *a, const void *b) {
  const waiting *x = a, *y = b;
  return x->memory != y->memory ? (x->memory < y->memory ? -1 : 1) : x->leaf - y->leaf;
}

static int by_last(const void *a, const void *b) {
  const waiting *x = a, *y = b;
  return x->last != y->last ? x->last - y->last : x->leaf - y->leaf;
}

/* Node i has to do with this memory: all leaves that lie in it wait for it. */
static void note(unic_ready_plan *p, uint64_t memory, int i) {
  int low = 0, high = p->n;
  while (low < high) {
    int middle = (low + high) / 2;
    if (p->leaves[middle].memory < memory) low = middle + 1;
    else high = middle;
  }
  for (; low < p->n && p->leaves[low].memory == memory; low++) p->leaves[low].last = i;
}

static void note_tensor(unic_ready_plan *p, const unic_tensor *t, int i) {
  if (t) note(p, t->storage->born, i);
}

unic_status unic_ready_plan_new(unic_node *const *nodes, int n, const unic_ready *ready, unic_ready_plan **out) {
  unic_ready_plan *p = unic_new(sizeof *p);
  waiting *leaves = p ? unic_new((size_t)(ready->n + 1) * sizeof *leaves) : NULL;
  if (!leaves) {
    unic_delete(p);
    return UNIC_MEMORY;
  }
  *p = (unic_ready_plan){.ready = ready, .leaves = leaves, .n = ready->n};
  for (int l = 0; l < p->n; l++) {
    unic_tensor_ref(ready->leaves[l]);
    leaves[l] = (waiting){.memory = ready->leaves[l]->storage->born, .leaf = l, .last = -1};
  }
  qsort(leaves, (size_t)p->n, sizeof *leaves, by_memory);
  int closed = -1;   /* the last node of Lua */
  for (int i = 0; i < n; i++) {
    const unic_node *node = nodes[i];
    if (!node->info) closed = i;
    for (int e = 0; e < node->nedges; e++) {
      note_tensor(p, node->edges[e].leaf, i);
      note_tensor(p, node->edges[e].saved, i);
    }
    for (int j = 0; j < node->nouts; j++) note_tensor(p, node->outs[j].saved, i);
    /* A piece's nodes stand together; what it reads when it is run again is noted with the last of them. */
    if (node->frame && (i + 1 == n || nodes[i + 1]->frame != node->frame)) {
      int64_t count;
      const uint64_t *reads = unic_frame_reads(node, &count);
      for (int64_t r = 0; r < count; r++) note(p, reads[r], i);
    }
  }
  for (int l = 0; l < p->n; l++)
    if (leaves[l].last >= 0 && leaves[l].last < closed) leaves[l].last = closed;
  qsort(leaves, (size_t)p->n, sizeof *leaves, by_last);
  while (p->next < p->n && leaves[p->next].last < 0) p->next++;
  *out = p;
  return UNIC_OK;
}

unic_status unic_ready_after(unic_ready_plan *p, int i) {
  for (; p->next < p->n && p->leaves[p->next].last == i; p->next++) {
    int leaf = p->leaves[p->next].leaf;
    if (p->ready->leaves[leaf]->grad) UNIC_TRY(p->ready->call(p->ready->context, leaf));
  }
  return UNIC_OK;
}

void unic_ready_plan_free(unic_ready_plan *p) {
  if (!p) return;
  for (int l = 0; l < p->n; l++) unic_tensor_unref(p->ready->leaves[l]);
  unic_delete(p->leaves);
  unic_delete(p);
}
