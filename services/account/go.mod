module github.com/turumba/turumba/services/account

go 1.26.0

replace github.com/turumba/turumba/gen => ../../gen

replace github.com/turumba/turumba/kit => ../../kit
