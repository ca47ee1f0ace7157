/* The menu's screen. The only file that knows ncurses. */
#include "cmd/menu_screen.h"

#include <ctype.h>
#include <langinfo.h>
#include <ncurses.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define SEARCH_MAX 64
#define KEY_ESCAPE 27
#define CONTROL(letter) ((letter) & 0x1f)

struct view {
    const struct menu_list *list;
    size_t *shown; /* indexes of the lines that the search leaves */
    size_t shown_count;
    size_t at;     /* in SHOWN */
    size_t top;    /* the first one on the screen */
    char search[SEARCH_MAX];
    bool utf8;
};

bool menu_screen_is_possible(void)
{
    const char *term = getenv("TERM");

    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

/* TEXT on row Y from column X, cut at the right edge; what this locale cannot show becomes '?'. */
static void put(int y, int x, const char *text)
{
    mbstate_t state = {0};
    wchar_t wide;

    while (*text && x < COLS) {
        size_t length = mbrtowc(&wide, text, strlen(text), &state);
        int width = length == (size_t)-1 || length == (size_t)-2 || length == 0 ? -1 : wcwidth(wide);

        if (width < 0) {
            wide = L'?';
            width = 1;
            length = length == 0 || length > strlen(text) ? 1 : length;
            memset(&state, 0, sizeof(state));
        }
        if (x + width > COLS)
            return;
        mvaddnwstr(y, x, &wide, 1);
        x += width;
        text += length;
    }
}

/* Which lines hold what was typed. The chosen one stays if it is among them. */
static void search(struct view *view)
{
    size_t chosen = view->shown_count ? view->shown[view->at] : view->list->start;
    char line[MENU_LINE];

    view->shown_count = view->at = 0;
    for (size_t i = 0; i < view->list->count; i++) {
        view->list->describe(view->list->user, i, line);
        if (*view->search && !strcasestr(line, view->search))
            continue;
        if (i == chosen)
            view->at = view->shown_count;
        view->shown[view->shown_count++] = i;
    }
}

/* Rows that the parts of the screen take; what is least needed goes first when there are few. */
struct layout {
    int title, subtitle, heading, first, rows, foot; /* -1: not shown */
};

static struct layout lay_out(const struct view *view)
{
    struct layout layout = {-1, -1, -1, 0, LINES, -1};

    if (LINES >= 5)
        layout.foot = LINES - 1;
    if (LINES >= 8) {
        layout.title = 1;
        layout.subtitle = LINES >= 10 ? 2 : -1;
        layout.first = LINES >= 10 ? 4 : 3;
    }
    if (LINES >= 9 && view->list->heading)
        layout.heading = layout.first++;
    layout.rows = LINES - layout.first - (layout.foot >= 0 ? 2 : 0);
    return layout;
}

static void draw_line(const struct view *view, size_t index, int y, bool chosen)
{
    char line[MENU_LINE];
    bool usable = !view->list->can_choose || view->list->can_choose(view->list->user, view->shown[index]);

    view->list->describe(view->list->user, view->shown[index], line);
    attrset(chosen ? A_REVERSE : usable ? A_NORMAL : A_DIM);
    if (chosen)
        mvhline(y, 1, ' ', COLS > 2 ? COLS - 2 : 1);
    put(y, 2, line);
    attrset(A_NORMAL);
}

static void draw_foot(const struct view *view, int y)
{
    char text[MENU_LINE];

    if (*view->search) {
        snprintf(text, sizeof(text), "Search: %s", view->search);
        put(y, 2, text);
        curs_set(1);
        move(y, (int)min_u64(2 + strlen(text), (uint64_t)(COLS > 0 ? COLS - 1 : 0)));
        return;
    }
    curs_set(0);
    snprintf(text, sizeof(text), "%s move    Enter %s    letters search    Esc %s",
             view->utf8 ? "\xe2\x86\x91\xe2\x86\x93" : "Up, Down", view->list->enter,
             view->list->leave);
    attrset(A_DIM);
    put(y, 2, text);
    attrset(A_NORMAL);
}

static void draw(struct view *view)
{
    struct layout layout = lay_out(view);
    size_t rows = layout.rows > 0 ? (size_t)layout.rows : 1;

    if (view->at < view->top)
        view->top = view->at;
    if (view->at >= view->top + rows)
        view->top = view->at - rows + 1;
    erase();
    attrset(A_BOLD);
    if (layout.title >= 0)
        put(layout.title, 2, view->list->title);
    attrset(A_DIM);
    if (layout.subtitle >= 0)
        put(layout.subtitle, 2, view->list->subtitle);
    if (layout.heading >= 0)
        put(layout.heading, 2, view->list->heading);
    attrset(A_NORMAL);
    for (size_t i = 0; i < rows && view->top + i < view->shown_count; i++)
        draw_line(view, view->top + i, layout.first + (int)i, view->top + i == view->at);
    if (!view->shown_count)
        put(layout.first, 2, view->list->count ? "nothing matches" : "nothing is here");
    if (layout.foot >= 0)
        draw_foot(view, layout.foot);
    refresh();
}

static void move_by(struct view *view, long by)
{
    long to = (long)view->at + by, last = (long)view->shown_count - 1;

    view->at = to < 0 || last < 0 ? 0 : (size_t)(to > last ? last : to);
}

static void type(struct view *view, int key)
{
    size_t length = strlen(view->search);

    if (key == KEY_BACKSPACE || key == 127 || key == '\b') {
        if (length)
            view->search[length - 1] = '\0';
    } else if (key == CONTROL('u')) {
        view->search[0] = '\0';
    } else if (key < 127 && isprint(key) && length + 1 < SEARCH_MAX) {
        view->search[length] = (char)key;
        view->search[length + 1] = '\0';
    } else {
        return;
    }
    search(view);
}

/* What a key does. 1: chosen; ERROR_CANCELLED: leave; 0: go on. */
static int press(struct view *view, int key)
{
    int page = lay_out(view).rows > 1 ? lay_out(view).rows - 1 : 1;

    switch (key) {
    case KEY_UP: move_by(view, -1); break;
    case KEY_DOWN: move_by(view, 1); break;
    case KEY_PPAGE: move_by(view, -page); break;
    case KEY_NPAGE: move_by(view, page); break;
    case KEY_HOME: view->at = 0; break;
    case KEY_END: move_by(view, (long)view->shown_count); break;
    case '\n':
    case '\r':
    case KEY_ENTER:
        return view->shown_count && (!view->list->can_choose ||
                                     view->list->can_choose(view->list->user, view->shown[view->at]));
    case KEY_ESCAPE:
        if (!*view->search)
            return ERROR_CANCELLED;
        view->search[0] = '\0';
        search(view);
        break;
    case CONTROL('c'):
    case CONTROL('d'):
        return ERROR_CANCELLED;
    default:
        type(view, key);
    }
    return 0;
}

static int loop(struct view *view)
{
    bool busy = view->list->work != NULL;
    int result = 0, errors = 0;

    while (!result) {
        int key;

        draw(view);
        timeout(busy ? 0 : 1000);
        key = getch();
        if (key == ERR && !busy && !isatty(STDIN_FILENO) && ++errors > 3)
            return ERROR_CANCELLED; /* the terminal has gone */
        if (key == ERR)
            busy = busy && view->list->work(view->list->user);
        else
            result = press(view, key);
    }
    return result;
}

int menu_screen_choose(const struct menu_list *list, size_t *index_out, struct error *error)
{
    struct view view = {.list = list, .utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8")};
    auto_free size_t *shown = calloc(list->count + 1, sizeof(*shown));
    SCREEN *screen;
    int result;

    if (!shown)
        return error_set(error, ERROR_SYSTEM, "no memory for a menu");
    screen = newterm(NULL, stdout, stdin);
    if (!screen)
        return error_set(error, ERROR_UNSUPPORTED, "this terminal is not known here");
    view.shown = shown;
    set_escdelay(25);
    raw();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    search(&view);
    result = loop(&view);
    if (result > 0)
        *index_out = shown[view.at];
    endwin();
    delscreen(screen);
    return result > 0 ? 0 : error_set(error, ERROR_CANCELLED, "nothing was chosen");
}
