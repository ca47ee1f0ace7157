/* Keys of those who publish: the secret key that --key names, and the public keys that a local archive is held to. */
#ifndef CMD_SIGNING_H
#define CMD_SIGNING_H

#include "cmd/cmd.h"
#include "trust/keys.h"

#define SIGNING_KEY_OPTION(type)                                                                                   \
    {"key", 'k', OPTION_TEXT, "KEY", "secret key to sign with: a .sec file, or NAME for ~/.config/circular/NAME.sec", \
     offsetof(type, key)}
#define SIGNING_EXPIRES_OPTION(type)                                                                    \
    {"expires", 'e', OPTION_POSITIVE_DURATION, "TIME", "how long clients may rely on this catalog (90d)", \
     offsetof(type, expires_ms)}

/* Of --expires, in whole seconds; 0: not given. */
static inline uint64_t signing_lifetime_s(uint64_t expires_ms)
{
    return expires_ms / 1000 + (expires_ms % 1000 != 0);
}

/*
 * Load the secret key KEY, a path or a NAME; a password is asked for on the terminal. NULL: the only one in
 * ~/.config/circular. Wipe it after use.
 */
int signing_key_load(const char *key, struct secret_key *key_out, struct error *error);

/* The public keys of --key, configuration and keys.d, without opening a session. Owned by the caller. */
int signing_trusted_keys(const struct context *context, struct key_ring *ring_out, struct error *error);

#endif
