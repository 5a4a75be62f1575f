/* The door to the terminal: line editing with history and completion (libedit), Ctrl-C, and the clock.
 *
 * Ctrl-C has five cases.
 *   At the prompt: the line is given up.
 *   In code run by edit.run: the flag that long C loops poll is raised, and a hook makes the interpreter raise "interrupted".
 *   In such code between edit.hold(true) and edit.hold(false) (a training step): the first one is only noted, so that the step can end and
 *   be saved; one more works as above.
 *   A second one within two seconds, with the prompt not reached in between: the process leaves with 130.
 *   In a recipe (mode "recipe") that has not reacted after two seconds, because it sits in a loop that LuaJIT compiled (those look at no
 *   hook) or in one long library call: likewise.
 * Everything a handler touches is a sig_atomic_t, or is async-signal-safe; lua_sethook from a handler is what LuaJIT's own program does.
 */
#include <errno.h>
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include <histedit.h>

#include <lauxlib.h>
#include <lua.h>

#include "status.h"

int unic_lua_open_edit(lua_State *L);   /* as in lua_unic.h, which this file needs nothing else of */

enum { GRACE_SECONDS = 2, HISTORY_LINES = 2000, EXIT_INTERRUPTED = 130 };

/* ---- Ctrl-C -------------------------------------------------------------------------------------------------------------------- */

static lua_State *signal_state;               /* the state whose code is interrupted; 0 when it is closed */
static pthread_t signal_thread;               /* the thread that runs it */
static volatile sig_atomic_t armed;           /* depth of edit.run: a raised error is caught */
static volatile sig_atomic_t reading;         /* inside readline */
static volatile sig_atomic_t leave_if_deaf;   /* mode "recipe" */
static volatile sig_atomic_t holding;         /* 1: the next Ctrl-C waits, 2: one waits */
static volatile sig_atomic_t pressed;         /* a Ctrl-C came since the prompt was last reached */
static volatile sig_atomic_t read_interrupted, read_resized, read_stopped;
static struct timespec pressed_at;
static struct sigaction before_sigint;
static bool sigint_installed;

static void leave(void) {
  static const char sentence[] = "\ninterrupted\n";
  ssize_t ignored = write(STDERR_FILENO, sentence, sizeof sentence - 1);
  (void)ignored;
  _exit(EXIT_INTERRUPTED);
}

static void interrupt_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, 0, 0, 0);
  if (!unic_interrupted()) return;   /* a C loop has seen the flag first, and its error is on the way */
  unic_interrupt_clear();
  lua_pushliteral(L, "interrupted");
  lua_error(L);
}

static void on_sigint(int number) {
  int saved = errno;
  if (!pthread_equal(pthread_self(), signal_thread)) {
    pthread_kill(signal_thread, number);   /* hooks may only be set where the state runs */
    errno = saved;
    return;
  }
  if (reading) {
    read_interrupted = 1;
  } else {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double since = (double)(now.tv_sec - pressed_at.tv_sec) + 1e-9 * (double)(now.tv_nsec - pressed_at.tv_nsec);
    if (pressed && since < GRACE_SECONDS) leave();
    pressed = 1;
    pressed_at = now;
    if (armed && holding == 1) {
      static const char sentence[] = "\nCtrl-C: this step ends and is saved; once more stops at once\n";
      ssize_t ignored = write(STDERR_FILENO, sentence, sizeof sentence - 1);
      (void)ignored;
      holding = 2;
    } else if (armed && signal_state) {
      unic_interrupt();
      lua_sethook(signal_state, interrupt_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
      if (leave_if_deaf) alarm(GRACE_SECONDS);
    } else if (leave_if_deaf) {
      leave();
    }
  }
  errno = saved;
}

/* Two seconds after Ctrl-C in a recipe: the flag is still up when nothing has looked at it. */
static void on_sigalrm(int number) {
  (void)number;
  if (armed && unic_interrupted()) leave();
}

static void set_handler(int number, void (*handler)(int)) {
  struct sigaction action = {0};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(number, &action, 0);
}

/* install_sigint(mode) -> the mode before, if any: "recipe" leaves with 130 when the code does not react, "prompt" waits for a second Ctrl-C. */
static int edit_install_sigint(lua_State *L) {
  static const char *const modes[] = {"prompt", "recipe", 0};
  int mode = luaL_checkoption(L, 1, "prompt", modes);
  const char *before = sigint_installed ? modes[leave_if_deaf ? 1 : 0] : 0;
  leave_if_deaf = mode == 1;
  if (!lua_pushthread(L)) luaL_error(L, "[install_sigint] must be called from the main program, not from a coroutine");
  lua_pop(L, 1);
  signal_state = L;
  signal_thread = pthread_self();
  if (!sigint_installed) {
    sigaction(SIGINT, 0, &before_sigint);
    if (before_sigint.sa_handler == SIG_IGN) return 0;   /* started in the background or under nohup: stay deaf, as asked */
    sigint_installed = true;
  }
  set_handler(SIGINT, on_sigint);
  if (leave_if_deaf) set_handler(SIGALRM, on_sigalrm);
  lua_pushstring(L, before);   /* NULL: nil */
  return 1;
}

/* The error handler around the caller's: after a stack overflow there is no room to call Lua, so only the place is noted, which
 * LuaJIT leaves out when the code was interpreted. */
static int run_handler(lua_State *L) {
  const char *message = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : 0;
  if (message && strstr(message, "stack overflow")) {
    lua_Debug frame;
    bool placed = strcmp(message, "stack overflow") != 0;
    for (int level = 1; !placed && level < 8 && lua_getstack(L, level, &frame) && lua_getinfo(L, "Sl", &frame); level++) {
      if (frame.currentline <= 0) continue;
      lua_pushfstring(L, "%s:%d: %s", frame.short_src, frame.currentline, message);
      placed = true;
    }
    return 1;
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

/* run(function, handler, ...) -> true, results or false, what the handler made of the error. As xpcall, and Ctrl-C raises "interrupted"
 * inside it: from the handler's first instruction to the last of the function, never outside. */
static int edit_run(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  int arguments = lua_gettop(L) - 2;
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_pushcclosure(L, run_handler, 1);
  lua_replace(L, 1);
  lua_replace(L, 2);   /* run_handler function ... */
  if (!armed) {
    unic_interrupt_clear();
    holding = 0;
  }
  armed++;
  int status = lua_pcall(L, arguments, LUA_MULTRET, 1);
  armed--;
  if (!armed) {
    if (lua_gethook(L) == interrupt_hook) lua_sethook(L, 0, 0, 0);
    unic_interrupt_clear();
    holding = 0;
    if (leave_if_deaf) alarm(0);
  }
  if (status == 0) {
    lua_pushboolean(L, 1);
    lua_replace(L, 1);
    return lua_gettop(L);
  }
  /* The stack has unwound: now there is room for the handler. */
  if (lua_type(L, 2) == LUA_TSTRING && strstr(lua_tostring(L, 2), "stack overflow")) {
    lua_getupvalue(L, 1, 1);
    lua_insert(L, 2);
    lua_pcall(L, 1, 1, 0);
  }
  lua_pushboolean(L, 0);
  lua_insert(L, 2);
  return 2;
}

/* hold(on) -> whether a Ctrl-C has been waiting; from now on the next one waits (true) or is raised as ever (false). */
static int edit_hold(lua_State *L) {
  bool waited = holding == 2;
  holding = lua_toboolean(L, 1) ? 1 : 0;
  lua_pushboolean(L, waited);
  return 1;
}

/* interrupted() -> true once a Ctrl-C has come that nothing has answered yet. */
static int edit_interrupted(lua_State *L) {
  lua_pushboolean(L, unic_interrupted());
  return 1;
}

/* ---- line editing -------------------------------------------------------------------------------------------------------------- */

static EditLine *editor;
static History *history_list;
static lua_State *reader;          /* the state that waits in readline, for the completion callback */
static const char *prompt_text;
static sigset_t outside_mask;      /* the signal mask while waiting for a key */
static char completer_key, sentinel_key;   /* addresses: keys of the registry */

static char *prompt_of(EditLine *el) {
  (void)el;
  return (char *)prompt_text;
}

static void on_resize(int number) {
  (void)number;
  read_resized = 1;
}

static void on_stop(int number) {
  (void)number;
  read_stopped = 1;
}

/* Ctrl-Z: give the terminal back as it was, stop, and take it again on the way back. */
static void stop_here(EditLine *el) {
  el_set(el, EL_PREP_TERM, 0);
  struct sigaction ours, standard = {0};
  standard.sa_handler = SIG_DFL;
  sigemptyset(&standard.sa_mask);
  sigaction(SIGTSTP, &standard, &ours);
  raise(SIGTSTP);
  sigset_t stop, before;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTSTP);
  pthread_sigmask(SIG_UNBLOCK, &stop, &before);   /* it was pending until here: the process stops in this call */
  pthread_sigmask(SIG_SETMASK, &before, 0);
  sigaction(SIGTSTP, &ours, 0);
  el_set(el, EL_PREP_TERM, 1);
  el_set(el, EL_REFRESH);
}

/* Signals that came while they were blocked take effect now. (pselect leaves them pending when there is a key to read as well.) */
static void let_signals_in(void) {
  sigset_t blocked;
  pthread_sigmask(SIG_SETMASK, &outside_mask, &blocked);
  pthread_sigmask(SIG_SETMASK, &blocked, 0);
}

/* One key, as libedit asks for it: 1 with the character, 0 at the end of input, -1 on an error or Ctrl-C. Signals are let in only while
 * waiting, so that none is missed between a look at the flag and the wait. */
static int read_key(EditLine *el, wchar_t *key) {
  char bytes[MB_LEN_MAX];
  size_t count = 0;
  for (;;) {
    if (read_interrupted) return -1;
    if (read_resized) {
      read_resized = 0;
      el_resize(el);
      el_set(el, EL_REFRESH);
    }
    if (read_stopped) {
      read_stopped = 0;
      stop_here(el);
    }
    fd_set wait;
    FD_ZERO(&wait);
    FD_SET(STDIN_FILENO, &wait);
    if (pselect(STDIN_FILENO + 1, &wait, 0, 0, 0, &outside_mask) < 0) {
      if (errno == EINTR) continue;
      return -1;
    }
    let_signals_in();
    if (read_interrupted) return -1;
    ssize_t got = read(STDIN_FILENO, bytes + count, 1);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) return (int)got;
    count++;
    mbstate_t state = {0};
    size_t used = mbrtowc(key, bytes, count, &state);
    if (used == (size_t)-2 && count < sizeof bytes) continue;   /* the middle of a character */
    if (used > sizeof bytes) *key = (unsigned char)bytes[0];    /* not of this encoding: taken as it is */
    return 1;
  }
}

/* Tab: the Lua completer gets the text before and after the cursor and answers with the text to insert and the list to show. */
static unsigned char complete(EditLine *el, int key) {
  (void)key;
  lua_State *L = reader;
  const LineInfo *line = el_line(el);
  int top = lua_gettop(L);
  unsigned char result = CC_REFRESH_BEEP;
  lua_pushlightuserdata(L, &completer_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  if (lua_isfunction(L, -1)) {
    lua_pushlstring(L, line->buffer, (size_t)(line->cursor - line->buffer));
    lua_pushlstring(L, line->cursor, (size_t)(line->lastchar - line->cursor));
    if (lua_pcall(L, 2, 2, 0) == 0) {
      if (lua_isstring(L, -2) && el_insertstr(el, lua_tostring(L, -2)) == 0) result = CC_REFRESH;
      if (lua_isstring(L, -1)) {
        printf("\n%s\n", lua_tostring(L, -1));
        fflush(stdout);
        result = CC_REDISPLAY;
      }
    }
  }
  lua_settop(L, top);
  return result;
}

/* Characters are decoded by the C library, so a UTF-8 locale is needed to type an accent; only the character type is set, numbers stay. */
static void choose_locale(void) {
  setlocale(LC_CTYPE, "");
  if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
}

static bool open_history(void) {
  if (history_list) return true;
  HistEvent event;
  history_list = history_init();
  if (!history_list) return false;
  history(history_list, &event, H_SETSIZE, HISTORY_LINES);
  history(history_list, &event, H_SETUNIQUE, 1);
  return true;
}

static bool open_editor(void) {
  static const char *const keys[][2] = {
    {"^I", "unic-complete"},
    {"^R", "em-inc-search-prev"},
    {"^W", "ed-delete-prev-word"},
    {"\033[1~", "ed-move-to-beg"}, {"\033[4~", "ed-move-to-end"},
    {"\033[7~", "ed-move-to-beg"}, {"\033[8~", "ed-move-to-end"},
    {"\033[H", "ed-move-to-beg"},  {"\033[F", "ed-move-to-end"},
    {"\033[3~", "ed-delete-next-char"},
    {"\033[1;5C", "em-next-word"}, {"\033[1;5D", "ed-prev-word"},
  };
  if (editor) return true;
  if (!open_history()) return false;
  choose_locale();
  editor = el_init("unic", stdin, stdout, stderr);
  if (!editor) return false;
  el_set(editor, EL_PROMPT_ESC, prompt_of, '\1');
  el_set(editor, EL_EDITOR, "emacs");
  el_set(editor, EL_HIST, history, history_list);
  el_wset(editor, EL_ADDFN, L"unic-complete", L"Complete a Lua name", complete);   /* el_set would copy the words and never free them */
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) el_set(editor, EL_BIND, keys[i][0], keys[i][1], NULL);
  el_source(editor, 0);   /* the user's ~/.editrc */
  el_wset(editor, EL_GETCFN, read_key);
  return true;
}

static void close_editor(void) {
  if (editor) el_end(editor);
  if (history_list) history_end(history_list);
  editor = 0;
  history_list = 0;
}

static bool can_edit(void) {
  const char *terminal = getenv("TERM");
  return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && terminal && *terminal && strcmp(terminal, "dumb") != 0;
}

/* A line with the terminal in libedit's hands; 0 at the end of input or on Ctrl-C. */
static const char *edited_line(int *length) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGINT);
  sigaddset(&blocked, SIGWINCH);
  sigaddset(&blocked, SIGTSTP);
  pthread_sigmask(SIG_BLOCK, &blocked, &outside_mask);
  struct sigaction resize = {0}, resize_before, stop = {0}, stop_before;
  resize.sa_handler = on_resize;
  stop.sa_handler = on_stop;
  sigaction(SIGWINCH, &resize, &resize_before);
  sigaction(SIGTSTP, 0, &stop_before);
  if (stop_before.sa_handler != SIG_IGN) sigaction(SIGTSTP, &stop, 0);
  el_resize(editor);
  el_set(editor, EL_PREP_TERM, 1);   /* before the prompt is printed: what is typed at its sight must not be echoed by the terminal */
  *length = 0;
  const char *line = el_gets(editor, length);
  sigaction(SIGTSTP, &stop_before, 0);
  sigaction(SIGWINCH, &resize_before, 0);
  pthread_sigmask(SIG_SETMASK, &outside_mask, 0);
  return line;
}

/* A line as the terminal or the pipe gives it. */
static const char *plain_line(int *length, char **buffer) {
  struct sigaction action;
  sigaction(SIGINT, 0, &action);
  action.sa_flags &= ~SA_RESTART;   /* Ctrl-C has to end the wait */
  sigaction(SIGINT, &action, 0);
  if (isatty(STDIN_FILENO)) {
    for (const char *c = prompt_text, *quiet = 0; *c; c++) {   /* what stands between two \1 are colours */
      if (*c == '\1') quiet = quiet ? 0 : c;
      else if (!quiet) fputc(*c, stderr);
    }
    fflush(stderr);
  }
  size_t size = 0;
  ssize_t got = read_interrupted ? -1 : getline(buffer, &size, stdin);
  if (got < 0) clearerr(stdin);
  action.sa_flags |= SA_RESTART;
  sigaction(SIGINT, &action, 0);
  *length = (int)got;
  return got < 0 ? 0 : *buffer;
}

/* readline(prompt) -> the line without its end; or nil and "end" or "interrupt". Colours in the prompt stand between two \1. */
static int edit_readline(lua_State *L) {
  prompt_text = luaL_optstring(L, 1, "");
  fflush(stdout);
  bool edits = can_edit() && open_editor();
  reader = L;
  read_interrupted = read_resized = read_stopped = 0;
  pressed = 0;
  reading = 1;
  char *buffer = 0;
  int length = 0;
  const char *line = edits ? edited_line(&length) : plain_line(&length, &buffer);
  reading = 0;
  if (line && !read_interrupted) {
    while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r')) length--;
    lua_pushlstring(L, line, (size_t)length);
    free(buffer);
    return 1;
  }
  free(buffer);
  if (read_interrupted && isatty(STDIN_FILENO)) {
    fputs(edits ? "^C\n" : "\n", edits ? stdout : stderr);   /* a terminal that is not in libedit's hands has echoed ^C itself */
    fflush(stdout);
  }
  lua_pushnil(L);
  lua_pushstring(L, read_interrupted ? "interrupt" : "end");
  return 2;
}

/* history_add(line): the line can be called back with the arrow keys. */
static int edit_history_add(lua_State *L) {
  const char *line = luaL_checkstring(L, 1);
  HistEvent event;
  if (open_history()) history(history_list, &event, H_ENTER, line);
  return 0;
}

/* on_complete(function(before, after) -> text to insert or nil, list to show or nil) */
static int edit_on_complete(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_pushlightuserdata(L, &completer_key);
  lua_pushvalue(L, 1);
  lua_rawset(L, LUA_REGISTRYINDEX);
  return 0;
}

/* ---- the terminal and the clock ------------------------------------------------------------------------------------------------ */

/* isatty(number of the file: 0, 1 or 2) */
static int edit_isatty(lua_State *L) {
  lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
  return 1;
}

/* width() -> columns of the terminal, 80 without one */
static int edit_width(lua_State *L) {
  struct winsize size;
  int columns = 0;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) columns = size.ws_col;
  lua_pushinteger(L, columns > 0 ? columns : 80);
  return 1;
}

/* clock() -> seconds on a clock that only runs forward */
static int edit_clock(lua_State *L) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  lua_pushnumber(L, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
  return 1;
}

/* When the state closes: no handler may reach into it any more, and the terminal is given back. */
static int sentinel_gc(lua_State *L) {
  (void)L;
  signal_state = 0;
  if (sigint_installed) sigaction(SIGINT, &before_sigint, 0);
  sigint_installed = false;
  close_editor();
  return 0;
}

int unic_lua_open_edit(lua_State *L) {
  static const luaL_Reg functions[] = {
    {"install_sigint", edit_install_sigint}, {"run", edit_run}, {"interrupted", edit_interrupted}, {"hold", edit_hold},
    {"readline", edit_readline}, {"history_add", edit_history_add}, {"on_complete", edit_on_complete},
    {"isatty", edit_isatty}, {"width", edit_width}, {"clock", edit_clock},
    {0, 0},
  };
  lua_pushlightuserdata(L, &sentinel_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  if (lua_isnil(L, -1)) {
    lua_pushlightuserdata(L, &sentinel_key);
    lua_newuserdata(L, 1);
    lua_newtable(L);
    lua_pushcfunction(L, sentinel_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
  }
  lua_pop(L, 1);
  lua_newtable(L);
  for (const luaL_Reg *f = functions; f->name; f++) {
    lua_pushcfunction(L, f->func);
    lua_setfield(L, -2, f->name);
  }
  return 1;
}
