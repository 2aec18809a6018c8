# bash completion for standfast, clovmmigrate, clsnmpsetup and sdtool.
# Install as /usr/share/bash-completion/completions/standfast, with links of the other names.
# Completing only reads: the configuration, and what is registered.

_standfast_registered() {
    clsnmpsetup -l 2>/dev/null | awk 'NR > 2 { print $2 }'
}

_standfast_domains() {
    clsnmpsetup -l 2>/dev/null | awk 'NR > 2 { print $4 }'
}

_standfast_nodes() {
    cibadmin --query --local --scope nodes 2>/dev/null | sed -n 's/.*<node .*uname="\([^"]*\)".*/\1/p'
}

_standfast_hosts() {
    sed -n 's/^[[:space:]]*\(name\|address\)[[:space:]]*=[[:space:]]*"\([^"]*\)".*/\2/p' \
        /etc/standfast/clovmmigrate.conf 2>/dev/null
}

_standfast_guests() {
    _standfast_domains
    standfast node list 2>/dev/null | awk 'NR > 1 && NF == 5 { print $2 }'
}

_standfast_words() {
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "${COMP_WORDS[COMP_CWORD]}")
}

_standfast_given() {
    local word
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ $word == "$1" ]] && return 0
    done
    return 1
}

_sdtool() {
    if [[ ${COMP_WORDS[COMP_CWORD-1]} == -k ]]; then
        _standfast_words "$(_standfast_nodes)"
    else
        _standfast_words "-s -b -e -r -k -C -h --json --yes"
    fi
}

_clsnmpsetup() {
    case ${COMP_WORDS[COMP_CWORD-1]} in
        -a) _standfast_words "$(_standfast_nodes)" ;;
        -m | -d | --check | --forget) _standfast_words "$(_standfast_registered)" ;;
        --connection) _standfast_words "ssh telnet" ;;
        --ppar-id) _standfast_words "$(seq -s ' ' 0 15)" ;;
        --password-file) mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}") ;;
        --domain | --lan0 | --lan1 | --user | --weight) COMPREPLY=() ;;
        *)
            if _standfast_given -a || _standfast_given -m; then
                _standfast_words "--domain --ppar-id --lan0 --lan1 --user --connection --weight --password \
                    --password-file --dry-run -n"
            elif _standfast_given -d; then
                _standfast_words "--yes --dry-run -n"
            elif _standfast_given -l; then
                _standfast_words "--json"
            elif ((COMP_CWORD == 1)); then
                _standfast_words "-l -a -m -d --check --forget --reason -h"
            fi
            ;;
    esac
}

_clovmmigrate() {
    case ${COMP_WORDS[COMP_CWORD-1]} in
        -p | -u) _standfast_words "$(_standfast_guests)" ;;
        --skip-save|--saved) _standfast_words "$(_standfast_hosts)" ;;
        --reason) COMPREPLY=() ;;
        *)
            if [[ ${COMP_WORDS[COMP_CWORD-2]} == -u && ${COMP_WORDS[COMP_CWORD]} != -* ]]; then
                _standfast_words "$(_standfast_hosts)"
            elif _standfast_given -u; then
                _standfast_words "-n --yes --skip-save --saved --ignore-clocks --reason"
            elif _standfast_given -p; then
                _standfast_words "-n --yes"
            else
                _standfast_words "-p -u -n --yes -h"
            fi
            ;;
    esac
}

_standfast_node() {
    case ${COMP_WORDS[COMP_CWORD-1]} in
        node) _standfast_words "add change remove list check --help" ;;
        add) _standfast_words "$(_standfast_nodes)" ;;
        change | remove | check) _standfast_words "$(standfast node list 2>/dev/null | awk 'NR > 1 { print $1 }')" ;;
        --guest | --weight) COMPREPLY=() ;;
        *)
            case $1 in
                add | change) _standfast_words "--guest --host --weight -n --json --help" ;;
                remove) _standfast_words "-n --yes --json --help" ;;
                *) _standfast_words "--json --help" ;;
            esac
            ;;
    esac
}

_standfast() {
    local sub=${COMP_WORDS[1]} action=${COMP_WORDS[2]}
    if ((COMP_CWORD == 1)); then
        _standfast_words "window migrate node verify install uninstall compat sim lab --help --version"
        return
    fi
    case ${COMP_WORDS[COMP_CWORD-1]} in
        --to | --host | --skip-save | --saved) _standfast_words "$(_standfast_hosts)"; return ;;
        --mode) _standfast_words "guarded frozen"; return ;;
        --budget) _standfast_words "auto none"; return ;;
        --raise) _standfast_words "whole-window just-in-time"; return ;;
        --lease | --reason | --wait | --target-user) COMPREPLY=(); return ;;
        --target-password-file) mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"); return ;;
    esac
    if [[ $sub == migrate && ${COMP_WORDS[COMP_CWORD]} != -* ]] && ((COMP_CWORD == 2)); then
        _standfast_words "$(_standfast_guests)"
    elif [[ $sub == migrate ]]; then
        _standfast_words "--to --mode --budget --raise --lease --postcopy --cold --force --target-user \
            --target-password-file --reason -n --dry-run --yes --json --help"
    elif [[ $sub == verify ]]; then
        _standfast_words "--json --help"
    elif [[ $sub == node ]]; then
        _standfast_node "$action"
    elif [[ $sub == window ]] && ((COMP_CWORD == 2)); then
        _standfast_words "open close status extend lower repair confirm-dead --help"
    elif [[ $sub == window && $action =~ ^(open|close|confirm-dead)$ && ${COMP_WORDS[COMP_CWORD]} != -* ]]; then
        _standfast_words "$(_standfast_guests)"
    elif [[ $sub == window ]]; then
        case $action in
            open) _standfast_words "--to --mode --budget --lease --reason -n --json --help" ;;
            close) _standfast_words "--to --skip-save --saved --ignore-clocks --reason -n --yes --json --help" ;;
            status) _standfast_words "--wait --json --help" ;;
            lower) _standfast_words "--overdue --json --help" ;;
            confirm-dead) _standfast_words "--host --reason --yes --json --help" ;;
            *) _standfast_words "--json --help" ;;
        esac
    fi
}

complete -F _standfast standfast
complete -F _sdtool sdtool
complete -F _clsnmpsetup clsnmpsetup
complete -F _clovmmigrate clovmmigrate
