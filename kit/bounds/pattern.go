package bounds

import (
	"regexp/syntax"
	"unicode/utf8"
)

// longest is the most bytes that a text can have which a pattern allows; there is none
// where the pattern leaves an end open, or repeats without a limit.
func longest(pattern string) (n int, ok bool) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil || !closed(re) {
		return 0, false
	}
	return longestOf(re)
}

// closed reports whether all that matches begins and ends where the text does.
func closed(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			if !closed(sub) {
				return false
			}
		}
		return true
	case syntax.OpConcat:
		first, last := re.Sub[0], re.Sub[len(re.Sub)-1]
		if len(re.Sub) == 2 && first.Op == syntax.OpBeginText && last.Op != syntax.OpEndText {
			return last.Op == syntax.OpAlternate && allEnd(last) || last.Op == syntax.OpConcat && last.Sub[len(last.Sub)-1].Op == syntax.OpEndText
		}
		return first.Op == syntax.OpBeginText && last.Op == syntax.OpEndText
	}
	return false
}

// allEnd reports whether each alternative ends where the text does: the parser takes a
// common beginning out of alternatives.
func allEnd(re *syntax.Regexp) bool {
	for _, sub := range re.Sub {
		end := sub
		if sub.Op == syntax.OpConcat {
			end = sub.Sub[len(sub.Sub)-1]
		}
		if end.Op != syntax.OpEndText {
			return false
		}
	}
	return true
}

func longestOf(re *syntax.Regexp) (n int, ok bool) {
	switch re.Op {
	case syntax.OpStar, syntax.OpPlus:
		return 0, false
	case syntax.OpLiteral:
		return utf8.UTFMax * len(re.Rune), true // folding may make another letter of it
	case syntax.OpCharClass:
		if len(re.Rune) == 0 {
			return 0, true
		}
		return max(1, utf8.RuneLen(re.Rune[len(re.Rune)-1])), true
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return utf8.UTFMax, true
	case syntax.OpRepeat:
		if re.Max < 0 {
			return 0, false
		}
		n, ok = longestOf(re.Sub[0])
		return n * re.Max, ok
	}
	for _, sub := range re.Sub {
		one, ok := longestOf(sub)
		if !ok {
			return 0, false
		}
		if re.Op == syntax.OpAlternate {
			n = max(n, one)
		} else {
			n += one
		}
	}
	return n, true
}
