# bash completion for logcachectl                          -*- shell-script -*-
# SPDX-License-Identifier: BSD-3-Clause
#
# Needs nothing of the package bash-completion but to be found by it. Settings are those of the running server, if it answers
# soon, and else those that this version knows; volumes to forget are those of the cache.

# The words of the command line, put together again where bash has split them at "=" and ":": _words, and the number
# of the present one: _at. What stands before the part of it that bash replaces: _before.
_logcachectl_words()
{
	local i word previous='' part
	_words=() _at=0 _before=
	for ((i = 0; i <= COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if ((i > 1)) && [[ $word == [=:]* || $previous == *[=:] ]] &&
			[[ $COMP_WORDBREAKS == *[=:]* && -n $previous ]]; then
			_words[_at]+=$word
		else
			((i == 0)) || _at=$((_at + 1))
			_words[_at]=$word
		fi
		previous=$word
	done
	part=${COMP_WORDS[COMP_CWORD]}
	[[ $part == [=:] ]] && part=
	_before=${_words[_at]%"$part"}
}

# The replies: those of the WORDS that begin with the present word. One that ends in "=" goes on.
_logcachectl_offer()
{
	local word
	for word in "$@"; do
		[[ $word == "${_words[_at]}"* ]] || continue
		[[ $word == *= ]] && compopt -o nospace 2>/dev/null
		COMPREPLY+=("${word#"$_before"}")
	done
}

# Files, in the value of a word like cache=PATH, too.
_logcachectl_files()
{
	local path=${_words[_at]#"${1-}"} file
	compopt -o filenames 2>/dev/null
	while IFS= read -r file; do
		file=${1-}$file
		COMPREPLY+=("${file#"$_before"}")
	done < <(compgen -f -- "$path")
}

_logcachectl_ask()
{
	timeout 2 "${_words[0]}" "$@" 2>/dev/null </dev/null
}

# The keys of settings.
_logcachectl_keys()
{
	local keys=
	if [[ -n $_socket ]]; then
		keys=$(_logcachectl_ask -s "$_socket" get | sed -n 's/^\([a-z][a-z-]*\) .*/\1/p')
	fi
	echo "${keys:-writeback writeback-threshold writeback-batch dirty-low dirty-high flush-interval flush-deadline
		superblock-interval stall-timeout client-timeout on-exit}"
}

_logcachectl_set()
{
	local key=${_words[_at]%%=*} keys
	if [[ ${_words[_at]} != *=* ]]; then
		# shellcheck disable=SC2207 # keys are words
		keys=($(_logcachectl_keys))
		_logcachectl_offer --persist "${keys[@]/%/=}"
		return
	fi
	case $key in
	writeback) _logcachectl_offer "$key="{on,off,default} ;;
	on-exit) _logcachectl_offer "$key="{keep,drain,default} ;;
	writeback-batch) _logcachectl_offer "$key="{auto,default} ;;
	*) _logcachectl_offer "$key=default" ;;
	esac
}

_logcachectl_sizes()
{
	_logcachectl_offer --segment-size={8K,16K,32K,64K,128K,256K,512K,1M}
}

# The names of the volumes of a cache that nobody serves, as the shell wants them. The default export has none.
_logcachectl_volumes()
{
	local name
	while IFS= read -r name; do
		[[ $name == "(default)" ]] || _logcachectl_offer "${2-}$(printf %q "$name")"
	done < <(_logcachectl_ask dump "$1" | sed -n 's/^volume [0-9]* *\(.*\), [0-9]* bytes (.*/\1/p')
}

_logcachectl()
{
	local _words _at _before _socket=${LOGCACHE_SOCKET-} i command='' offline='' operands=() present
	COMPREPLY=()
	_logcachectl_words
	present=${_words[_at]}
	for ((i = 1; i < _at; i++)); do
		case ${_words[i]} in
		-s) _socket=${_words[++i]} ;;
		-s*) _socket=${_words[i]#-s} ;;
		--offline) offline=yes ;;
		-*) ;;
		*) if [[ -z $command ]]; then command=${_words[i]}; else operands+=("${_words[i]}"); fi ;;
		esac
	done
	if [[ ${_words[_at - 1]} == -s ]]; then
		_logcachectl_files
		return
	fi
	case $command in
	"")
		_logcachectl_offer status top watch get set flush drain attach detach reset-stats format check dump \
			repair forget -s --help --version
		;;
	status) _logcachectl_offer -s --json ;;
	top | watch) _logcachectl_offer -s --interval= ;;
	get)
		# shellcheck disable=SC2046 # keys are words
		_logcachectl_offer -s $( ((${#operands[@]})) || _logcachectl_keys)
		;;
	set)
		_logcachectl_set
		_logcachectl_offer -s
		;;
	flush | reset-stats) _logcachectl_offer -s ;;
	detach) _logcachectl_offer -s --wait ;;
	drain)
		case $present in
		cache=*) _logcachectl_files cache= ;;
		backing=*) _logcachectl_files backing= ;;
		volume=*)
			for i in "${operands[@]}"; do
				[[ $i != cache=* ]] || _logcachectl_volumes "${i#cache=}" volume=
			done
			;;
		*)
			if [[ -n $offline ]]; then
				_logcachectl_offer cache= volume= backing= --progress --quiet
			else
				_logcachectl_offer -s --wait --offline
			fi
			;;
		esac
		;;
	attach)
		case $present in
		--format=*) _logcachectl_offer --format={auto,no,force} ;;
		--segment-size=*) _logcachectl_sizes ;;
		-*) _logcachectl_offer -s --wait --format= --segment-size= ;;
		*) ((${#operands[@]})) || _logcachectl_files ;;
		esac
		;;
	format)
		case $present in
		--segment-size=*) _logcachectl_sizes ;;
		-*) _logcachectl_offer --segment-size= --label= --size= --force ;;
		*) ((${#operands[@]})) || _logcachectl_files ;;
		esac
		;;
	check | repair | dump | forget)
		case $command,$present in
		check,-*) _logcachectl_offer --progress --quiet ;;
		repair,-*) _logcachectl_offer --yes --progress --quiet ;;
		dump,-*) _logcachectl_offer --json --segments --records ;;
		forget,-*) _logcachectl_offer --yes-lose-data ;;
		*)
			if ((${#operands[@]} == 0)); then
				_logcachectl_files
			elif [[ $command == forget ]] && ((${#operands[@]} == 1)); then
				_logcachectl_volumes "${operands[0]}"
			fi
			;;
		esac
		;;
	esac
}

complete -F _logcachectl logcachectl
