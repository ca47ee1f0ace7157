/* circular menu: what an archive holds, what of it is here, and a machine from it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/text.h"
#include "cmd/accelerators.h"
#include "cmd/menu.h"
#include "cmd/menu_screen.h"
#include "cmd/open.h"
#include "cmd/options.h"
#include "image/tree.h"
#include "store/store.h"
#include "vm/hypervisor.h"

/* Pages of a map that are looked at to say how much of an image is here; of larger ones a sample. */
#define PAGES_MAX 512
#define SHARE_UNKNOWN (-1)

struct menu {
    struct opened opened;
    const struct catalog *catalog;
    int *shares; /* percent of each version that is cached */
    size_t measured;
    struct store *here; /* the cache alone, without the network; NULL: there is none */
    struct workers *workers;
    int name_width, version_width;
    char *title, *subtitle, *heading;
};

/* The blocks of a page of the map that hold something, and those of them that are here. */
static void measure_page(struct menu *menu, struct tree *tree, uint64_t first, uint64_t *data, uint64_t *here)
{
    const struct map *map = tree_map(tree);
    struct digest digests[MAP_FANOUT];
    uint32_t count = (uint32_t)min_u64(MAP_FANOUT, map->block_count - first);

    if (tree_lookup(tree, first, count, PRIORITY_FILL, digests, NULL)) {
        *data += count; /* where the map is not here the blocks hardly are */
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        if (!digest_is_zero(&digests[i])) {
            *data += 1;
            *here += cache_has_block(store_cache(menu->here), &digests[i]);
        }
}

static int measure(struct menu *menu, const struct catalog_version *version)
{
    uint64_t pages, step, data = 0, here = 0;
    struct tree *tree;

    if (!menu->here || tree_open(menu->here, &version->image, &tree, NULL))
        return 0;
    pages = divide_up(tree_map(tree)->block_count, MAP_FANOUT);
    step = divide_up(pages, PAGES_MAX);
    for (uint64_t page = 0; page < pages; page += max_u64(step, 1))
        measure_page(menu, tree, page * MAP_FANOUT, &data, &here);
    tree_close(tree);
    if (!data || here == data)
        return 100;
    return (int)min_u64(here * 100 / data, 99);
}

static bool measure_next(void *user)
{
    struct menu *menu = user;

    if (menu->measured >= menu->catalog->version_count)
        return false;
    menu->shares[menu->measured] = measure(menu, &menu->catalog->versions[menu->measured]);
    menu->measured++;
    return true;
}

static void describe(void *user, size_t index, char *text)
{
    const struct menu *menu = user;
    const struct catalog_version *version = &menu->catalog->versions[index];
    char disk[SIZE_TEXT], download[SIZE_TEXT], time[TIME_TEXT], share[16] = "...";

    if (menu->shares[index] != SHARE_UNKNOWN)
        snprintf(share, sizeof(share), "%d %%", menu->shares[index]);
    snprintf(text, MENU_LINE, "%-*s  %-*s  %9s  %9s  %6s  %.10s  %s", menu->name_width, version->name,
             menu->version_width, version->version, size_format(version->disk_size, disk),
             size_format(version->stored_size, download), share, time_format(version->published, time),
             open_is_newest(menu->catalog, version) ? "newest" : "");
}

static bool write_headings(struct menu *menu)
{
    const struct catalog *catalog = menu->catalog;
    auto_free char *location = location_redact(menu->opened.location.archive);
    auto_free char *archive = report_escape(location ? location : "");
    auto_free char *trusted = NULL;
    char signer[400], time[TIME_TEXT];

    menu->name_width = (int)strlen("NAME");
    menu->version_width = (int)strlen("VERSION");
    for (size_t i = 0; i < catalog->version_count; i++) {
        int name = (int)strlen(catalog->versions[i].name), version = (int)strlen(catalog->versions[i].version);

        menu->name_width = name > menu->name_width ? name : menu->name_width;
        menu->version_width = version > menu->version_width ? version : menu->version_width;
    }
    open_describe_signer(&menu->opened, signer, sizeof(signer));
    trusted = report_escape(signer);
    if (!archive || !trusted)
        return false;
    menu->title = text_format("OS Circular  %s", archive);
    menu->subtitle = text_format("signature %s; published %.10s%s", trusted, time_format(catalog->published, time),
                                 archive_is_offline(menu->opened.archive) ? "; out of reach, from the cache" : "");
    menu->heading = text_format("%-*s  %-*s  %9s  %9s  %6s  %s", menu->name_width, "NAME", menu->version_width,
                                "VERSION", "DISK", "DOWNLOAD", "CACHED", "PUBLISHED");
    return menu->title && menu->subtitle && menu->heading;
}

static void menu_finish(struct menu *menu)
{
    store_close(menu->here);
    workers_destroy(menu->workers);
    open_finish(&menu->opened);
    free(menu->shares);
    free(menu->title);
    free(menu->subtitle);
    free(menu->heading);
}

/* What there is to choose from. Without a cache nothing of it is here. */
static int menu_prepare(const struct context *context, const char *url, struct menu *menu)
{
    struct store_settings settings = {0};
    int status = open_archive(context, url, false, &menu->opened);

    if (status)
        return status;
    menu->catalog = archive_catalog(menu->opened.archive);
    menu->shares = calloc(menu->catalog->version_count + 1, sizeof(*menu->shares));
    if (!menu->shares || !write_headings(menu))
        return report_memory(context);
    for (size_t i = 0; i < menu->catalog->version_count; i++)
        menu->shares[i] = SHARE_UNKNOWN;
    settings.cache = session_cache(menu->opened.session);
    if (settings.cache && !workers_create(1, &menu->workers, NULL)) {
        settings.workers = menu->workers;
        if (store_open(&settings, &menu->here, NULL))
            menu->here = NULL;
    }
    return EXIT_OK;
}

/* Ways to run a machine. */
static const struct way {
    const char *hypervisor, *title;
    bool uefi;
} ways[] = {
    {"qemu", "QEMU", false},
    {"qemu", "QEMU with UEFI firmware", true},
    {"xen", "Xen", false},
    {"uml", "User-mode Linux", false},
    {"vbox", "VirtualBox", false},
};
#define WAY_COUNT (sizeof(ways) / sizeof(ways[0]))

struct way_menu {
    const char *accelerator; /* NULL: not found out yet */
    size_t looked_at;
    char texts[WAY_COUNT][MENU_LINE];
    bool usable[WAY_COUNT];
};

static void describe_way(void *user, size_t index, char *text)
{
    snprintf(text, MENU_LINE, "%-24s  %s", ways[index].title, ((struct way_menu *)user)->texts[index]);
}

static bool can_choose_way(void *user, size_t index)
{
    return ((struct way_menu *)user)->usable[index];
}

/* Whether KVM works takes some seconds to find out, but only once since the host was booted. */
static const char *find_accelerator(void)
{
    cleanup(host_settings_finish) struct host_settings settings;
    struct accelerator kvm;

    host_settings_init(&settings);
    accelerator_try(&settings.accelerator, ACCELERATOR_KVM, &kvm);
    return kvm.works ? "kvm" : "tcg";
}

/* Does this host have the way, and if not, why? */
static void look_at_way(struct way_menu *menu, size_t index)
{
    const struct way *way = &ways[index];
    const struct hypervisor *hypervisor;
    struct machine_plan plan = {
        .search_path = program_search_path(),
        .accelerator = menu->accelerator,
        .firmware = way->uefi ? MACHINE_UEFI : MACHINE_BIOS,
    };
    struct error error = ERROR_INIT;
    const char *text = "";

    menu->usable[index] = !hypervisor_choose(way->hypervisor, &hypervisor, &error) && !hypervisor->find(&plan, &error);
    if (!menu->usable[index])
        text = error.message;
    else if (!strcmp(way->hypervisor, "qemu"))
        text = strcmp(menu->accelerator, "kvm") ? "works everywhere, but slowly (TCG)" : "fast, on KVM";
    snprintf(menu->texts[index], MENU_LINE, "%.300s", text);
}

static bool look_further(void *user)
{
    struct way_menu *menu = user;

    if (!menu->accelerator)
        menu->accelerator = find_accelerator();
    else if (menu->looked_at < WAY_COUNT)
        look_at_way(menu, menu->looked_at++);
    return menu->looked_at < WAY_COUNT;
}

static int choose(const struct menu_list *list, size_t *index_out, struct error *error)
{
    int result = ERROR_UNSUPPORTED;

    if (menu_screen_is_possible())
        result = menu_screen_choose(list, index_out, error);
    return result == ERROR_UNSUPPORTED ? menu_plain_choose(list, index_out, error) : result;
}

/* How to run VERSION: one of the ways. */
static int choose_way(const struct catalog_version *version, const struct way **way_out, struct error *error)
{
    auto_free struct way_menu *menu = calloc(1, sizeof(*menu));
    auto_free char *title = NULL;
    struct menu_list list = {
        .subtitle = "what it writes is thrown away when it ends",
        .enter = "run",
        .leave = "go back",
        .count = WAY_COUNT,
        .describe = describe_way,
        .can_choose = can_choose_way,
        .work = look_further,
        .user = menu,
    };
    size_t chosen;
    int result;

    title = text_format("Run %s %s on", version->name, version->version);
    if (!menu || !title)
        return error_set(error, ERROR_SYSTEM, "no memory for a menu");
    for (size_t i = 0; i < WAY_COUNT; i++)
        strcpy(menu->texts[i], "...");
    list.title = title;
    result = choose(&list, &chosen, error);
    if (!result)
        *way_out = &ways[chosen];
    return result;
}

/* A version, and how to run it unless WAY_OUT is NULL. Who leaves the second list on a screen is back at the first. */
static int choose_both(struct menu *menu, const struct catalog_version **version_out, const struct way **way_out,
                       struct error *error)
{
    struct menu_list list = {
        .title = menu->title,
        .subtitle = menu->subtitle,
        .heading = menu->heading,
        .enter = way_out ? "choose" : "run",
        .leave = "leave",
        .count = menu->catalog->version_count,
        .describe = describe,
        .work = measure_next,
        .user = menu,
    };
    size_t chosen;
    int result;

    do {
        result = choose(&list, &chosen, error);
        if (result)
            return result;
        list.start = chosen;
        *version_out = &menu->catalog->versions[chosen];
        result = way_out ? choose_way(*version_out, way_out, error) : 0;
    } while (result == ERROR_CANCELLED && menu_screen_is_possible());
    return result;
}

/* "boot --vm NAME URL/NAME@VERSION" */
static int run_machine(const struct context *context, const struct way *way, char *location)
{
    static char boot[] = "boot", vm[] = "--vm", uefi[] = "--uefi";
    auto_free char *hypervisor = strdup(way->hypervisor);
    char *words[] = {boot, vm, hypervisor, location, way->uefi ? uefi : NULL, NULL};

    return hypervisor ? command_run(context, way->uefi ? 5 : 4, words) : report_memory(context);
}

/* As menu_choose; also how to run it, unless WAY_OUT is NULL. */
static int choose_from(const struct context *context, const char *url, char **location_out, const struct way **way_out)
{
    const struct catalog_version *version = NULL;
    struct menu menu = {0};
    struct error error = ERROR_INIT;
    int status;

    *location_out = NULL;
    url = url ? url : context->client->archive;
    if (!url)
        return report_usage(context, "URL is missing, and no configuration file has a line 'archive = URL'");
    status = menu_prepare(context, url, &menu);
    if (status == EXIT_OK && !choose_both(&menu, &version, way_out, &error)) {
        *location_out = location_format(menu.opened.location.archive, version->name, version->version);
        status = *location_out ? EXIT_OK : report_memory(context);
    }
    menu_finish(&menu);
    return status == EXIT_OK && error.code && error.code != ERROR_CANCELLED ? report_error(context, &error) : status;
}

int menu_choose(const struct context *context, const char *url, char **location_out)
{
    return choose_from(context, url, location_out, NULL);
}

static int run(const struct context *context, int count, char **arguments)
{
    const struct way *way = NULL;
    auto_free char *location = NULL;
    int status = choose_from(context, count ? arguments[0] : NULL, &location, &way);

    return location ? run_machine(context, way, location) : status;
}

const struct command command_menu = {
    .name = "menu",
    .usage = (const char *const[]){"[URL]", NULL},
    .summary = "choose an image of an archive, and how to run it, from a menu",
    .client = true,
    .run = run,
};
