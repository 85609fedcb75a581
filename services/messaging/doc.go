// Package messaging is the domain of the messaging service: channels, templates,
// group messages and messages, and the rules between them. It does no I/O.
package messaging
