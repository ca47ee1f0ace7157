/*
 * Random tests: each begins elsewhere every time, and can be made to begin where it failed.
 */
#ifndef SEED_H
#define SEED_H

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* The environment variable SEED, else another number each time. It is printed. */
static inline unsigned random_seed(void)
{
    const char *given = getenv("SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL) ^ (unsigned)getpid();

    print_message("# seed %u\n", seed);
    return seed;
}

#endif
