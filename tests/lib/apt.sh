# shellcheck shell=sh
# Where the host's apt takes Debian 12 from, so that mmdebstrap takes it from there too.

# Write the host's Debian 12 sources to files in FOLDER and print their names (one for each of apt's two notations);
# nothing if it has none: mmdebstrap then knows a default.
host_apt_sources() { # FOLDER
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] && sed -n -E '/^deb .*[ \t]bookworm(-updates|-security)?[ \t].*main/p' "$file"
    done >"$1/host.list"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] && awk -v RS= -v ORS='\n\n' \
            '/(^|\n)Types:[^\n]*deb/ && /(^|\n)Suites:[^\n]*bookworm/ && /(^|\n)Components:[^\n]*main/ &&
             !/(^|\n)Enabled: *no/' "$file"
    done >"$1/host.sources"
    for file in "$1/host.list" "$1/host.sources"; do
        [ -s "$file" ] && echo "$file"
    done
    return 0
}

# How the host's apt reaches its sources, as options for another apt.
host_apt_options() {
    apt-config dump 2>/dev/null | sed -n -E '/^Acquire::(https?::(Proxy|CaInfo)|Check-Valid-Until|Check-Date|Retries)/p'
}
