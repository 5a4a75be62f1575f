/* The door to facts about this build: compiler, and the libraries as they are loaded (a distribution may update them under a module). */
#include <lauxlib.h>
#include <lua.h>

#include <dnnl.h>
#include <histedit.h>
#include <png.h>
#include <turbojpeg.h>
#include <zip.h>
#include <zlib.h>

#include "lua_unic.h"

static void set_text(lua_State *L, const char *key, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

/* libraries() -> {name = version}; those without a call that tells it (turbojpeg, libedit) are named with what was compiled against, or "". */
static int libraries(lua_State *L) {
  const dnnl_version_t *dnnl = dnnl_version();
  lua_newtable(L);
  lua_pushfstring(L, "%d.%d.%d", dnnl->major, dnnl->minor, dnnl->patch);
  lua_setfield(L, -2, "oneDNN");
  set_text(L, "libpng", png_get_libpng_ver(NULL));
  set_text(L, "libzip", zip_libzip_version());
  set_text(L, "zlib", zlibVersion());
  lua_pushfstring(L, "%d.%d", LIBEDIT_MAJOR, LIBEDIT_MINOR);
  lua_setfield(L, -2, "libedit");
#ifdef UNIC_TURBOJPEG_VERSION
  set_text(L, "turbojpeg", UNIC_TURBOJPEG_VERSION);
#endif
  return 1;
}

/* compiler() -> its name and version, and whether the sanitizers are in */
static int compiler(lua_State *L) {
#if defined(__clang__)
  lua_pushliteral(L, "clang " __VERSION__);
#else
  lua_pushliteral(L, "gcc " __VERSION__);
#endif
#if defined(__SANITIZE_ADDRESS__)
  lua_pushboolean(L, 1);
#else
  lua_pushboolean(L, 0);
#endif
  return 2;
}

int unic_lua_open_info(lua_State *L) {
  static const luaL_Reg functions[] = {{"libraries", libraries}, {"compiler", compiler}, {NULL, NULL}};
  lua_newtable(L);
  luaL_register(L, NULL, functions);
  return 1;
}
