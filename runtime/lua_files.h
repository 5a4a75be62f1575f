/* What the doors of runtime/files share (lua_files.c: pictures, tables, output; lua_weights.c: reading of named tensors; lua_safetensors.c:
 * writing of them). */
#ifndef UNIC_LUA_FILES_H
#define UNIC_LUA_FILES_H

#include "lua_unic.h"

/* Raise the stored sentence behind "[op] ". */
int unic_files_raise(lua_State *L, unic_status status, const char *op);

/* Push a zeroed userdata of a type that unic_files_type made. Objects are made before the C call that fills them, so that an error in
 * between leaks nothing. */
void *unic_files_object(lua_State *L, const char *type, size_t bytes);

/* Make a type: a metatable in the registry under its name, with methods and what the collector calls. */
void unic_files_type(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction collect);

void unic_files_push_int64(lua_State *L, int64_t n);

/* A row-major copy of t on the CPU, or t itself when it is that already; a new reference. */
unic_status unic_files_host(unic_tensor *t, unic_tensor **out);

/* The names that safetensors gives the runtime's element types. */
extern const char *const unic_weights_dtype_names[UNIC_DTYPES];

/* Add the functions of lua_safetensors.c and lua_weights.c to the table on top of the stack. */
void unic_lua_add_safetensors(lua_State *L);
void unic_lua_add_weights(lua_State *L);

#endif
