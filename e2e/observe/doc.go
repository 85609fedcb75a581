// Package observe holds what operators see to what really happens: one trace from
// REST to the provider, and the metrics of the whole path.
package observe
