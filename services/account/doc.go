// Package account is the domain of the account service: accounts, users, roles,
// memberships, contacts and their groups, and the rules between them. It does no
// I/O.
package account
