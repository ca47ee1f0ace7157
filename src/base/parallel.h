/* Run one function on several threads at once and wait for all of them. */
#ifndef BASE_PARALLEL_H
#define BASE_PARALLEL_H

/* COUNT, or one a processor if it is 0; at least 1, at most 64. */
unsigned parallel_count(unsigned count);

/*
 * Call RUN(USER) on COUNT threads, of which the caller's is one, and return when all have returned. If the system
 * gives fewer threads there are fewer calls, but at least one: RUN takes its share from a common place until
 * nothing is left.
 */
void parallel_run(unsigned count, void (*run)(void *user), void *user);

#endif
