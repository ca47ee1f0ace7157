# bash completion of circular(1) and httpstorged(1). The program itself knows what can follow.

_circular() {
    local IFS=$'\n' line current start=1 kept
    local -a words before
    COMPREPLY=()

    # The line as the program will get it: readline splits URLs at ":", "@" and "=".
    line=${COMP_LINE:0:COMP_POINT}
    IFS=$' \t\n' read -r -a words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    before=("${words[@]:start}")
    [[ ${words[0]##*/} == httpstorged ]] && before=(httpstorged "${before[@]}")

    kept=${current%"${COMP_WORDS[COMP_CWORD]}"}
    [[ ${COMP_WORDS[COMP_CWORD]} == [:@=] ]] && kept=$current

    for line in $(circular completion -- "${before[@]}" 2>/dev/null); do
        case $line in
        :dir) COMPREPLY+=($(compgen -d -- "${COMP_WORDS[COMP_CWORD]}")) && compopt -o filenames ;;
        :file) COMPREPLY+=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")) && compopt -o filenames ;;
        *) line=${line%%$'\t'*} && COMPREPLY+=("${line#"$kept"}") ;;
        esac
    done
} &&
    complete -F _circular circular httpstorged
