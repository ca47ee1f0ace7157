/*
 * A TPM 2.0 for each machine: swtpm, with an endorsement key whose certificate
 * comes from a certificate authority of this user. State lies in a folder that
 * nobody else can read.
 */
#ifndef VM_TPM_H
#define VM_TPM_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct tpm_programs {
    char swtpm[PATH_MAX];
    char setup[PATH_MAX];   /* swtpm_setup */
    char localca[PATH_MAX]; /* swtpm_localca */
};

/* UNSUPPORTED names the Debian package that is missing. */
int tpm_find(const char *search_path, struct tpm_programs *programs_out, struct error *error);

/* One TPM. All is borrowed; paths are absolute, without commas or line ends. */
struct tpm {
    const char *search_path;
    const char *folder;    /* of its state */
    const char *ca_folder; /* of this user's certificate authority; made with the first TPM */
    const char *name;      /* of the machine: the common name in its certificates */
    bool bound;            /* its swtpm is killed when the process that starts it dies */
};

#define TPM_BANKS "sha1,sha256"

/* Is there one? */
bool tpm_exists(const struct tpm *tpm);

/*
 * A new TPM: own seeds, endorsement keys (RSA 2048 and NIST P-384) with certificates, a platform certificate, PCRs in
 * TPM_BANKS. A crash leaves all of it or nothing. EXISTS.
 */
int tpm_create(const struct tpm *tpm, struct error *error);
/* A new one in the place of the old, which is lost: keys, sealed secrets, certificates. BUSY: in use; NOT_FOUND. */
int tpm_reset(const struct tpm *tpm, struct error *error);

/*
 * Start swtpm on it, made if it is not there, with its control socket at SOCKET (below 108 bytes). It ends with the
 * machine that has connected to it; one that nobody connects to is ended by tpm_stop. The caller makes sure that no
 * machine uses it: an swtpm that is there is a leftover, and ended. BUSY: it does not end.
 */
int tpm_start(const struct tpm *tpm, const char *socket, struct error *error);
/* End what tpm_start has started at SOCKET, if it is still there. */
void tpm_stop(const struct tpm *tpm, const char *socket);

/* Remove the state in FOLDER, of a TPM that nobody uses any more. */
void tpm_remove(const char *folder);

#define TPM_SUBJECT 300

struct tpm_description {
    char subject[TPM_SUBJECT]; /* of the RSA endorsement key's certificate */
    char issuer[TPM_SUBJECT];
    int64_t created;           /* seconds since the epoch */
    bool in_use;
};

/* NOT_FOUND: there is none. */
int tpm_describe(const struct tpm *tpm, struct tpm_description *description_out, struct error *error);

/* Files, in the TPM's folder and in the authority's. */
#define TPM_CERTIFICATE    "ek-rsa2048.crt" /* DER */
#define TPM_CA_ROOT        "swtpm-localca-rootca-cert.pem"
#define TPM_CA_ISSUER      "issuercert.pem"

#endif
