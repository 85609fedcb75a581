package process

// PercentOf is how much the heap may grow of so many bytes that live.
var PercentOf = percentOf
